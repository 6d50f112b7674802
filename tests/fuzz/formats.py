"""Kinds of files that people hand over: small examples of each, and how the library reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tests.fuzz import mutate

RATE_HZ = 16000
_MOST_SAMPLES = 2**26  # of what may come out of seeds of under 100 kB: 256 MB


class InsaneError(Exception):
    """What came back without an error cannot be right."""


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Parameters
    ----------
    name, suffix
        What it is called, and the ending of its files.
    family
        Formats of one family are each other's material for splices.
    write
        Writes examples into a folder; returns them.
    read
        Reads a file the way the library does, and looks at what comes back.
    mutate
        Makes a mutant of the bytes of an example.
    weight
        How often it is drawn.
    """

    name: str
    suffix: str
    family: str
    write: Callable[[Path], list[Path]]
    read: Callable[[Path], None]
    mutate: Callable[..., bytes] = mutate.mutate_bytes
    weight: int = 4


def require(condition: object, text: str) -> None:
    """Raise `InsaneError` unless something holds."""
    if not condition:
        raise InsaneError(text)


# --- sound and video -----------------------------------------------------------------------------


def make_wave(seconds: float = 0.25, channels: int = 1) -> np.ndarray:
    """Make a tone in noise, ``(sample, channel)``."""
    random = np.random.default_rng(0)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 440 * time_s)[:, None]
    return tone + 0.05 * random.standard_normal((len(time_s), channels))


def write_sound(folder: Path, suffix: str, *kinds: tuple[str, int]) -> list[Path]:
    """Write a recording by libsndfile in some subtypes and numbers of channels."""
    import soundfile

    paths = []
    for i, (subtype, channels) in enumerate(kinds):
        path = folder / f"{i}{suffix}"
        seconds = 0.05 if suffix in (".wav", ".flac") else 0.25
        soundfile.write(path, make_wave(seconds, channels), RATE_HZ, subtype or None)
        paths.append(path)
    return paths


def write_video(folder: Path, suffix: str) -> list[Path]:
    """Write a video of six small frames with its sound, by FFmpeg, in two codecs."""
    import av

    paths = []
    videos, sounds = ("mpeg4", "libx264"), ("aac", "pcm_s16le" if suffix == ".mkv" else "aac")
    for i, (video, sound) in enumerate(zip(videos, sounds, strict=True)):
        path = folder / f"{i}{suffix}"
        with av.open(str(path), "w") as container:
            pictures: Any = container.add_stream(video, rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            samples: Any = container.add_stream(sound, rate=RATE_HZ)
            samples.layout = "mono"
            for k in range(6):
                shade = np.full((32, 32, 3), 30 * k, np.uint8)
                shade[: 4 * k] = 255
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
            wave = (make_wave(0.24)[:, 0] * 32767).astype("<i2")[None]
            frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            frame.sample_rate = RATE_HZ
            container.mux(samples.encode(frame))
            for stream in (pictures, samples):
                container.mux(stream.encode(None))
        paths.append(path)
    return paths


def read_sound(path: Path) -> None:
    """Read, resample and check a recording, as it is done before it is enhanced."""
    from avse_ppl.pipeline.inputs import has_video_stream, observe
    from avse_ppl.pipeline.jobs import measure_duration
    from avse_ppl.signal.audio import load_audio
    from avse_ppl.signal.stft import Stft

    require(0 <= measure_duration(path) < math.inf, f"{measure_duration(path)} s by the header")
    require(isinstance(has_video_stream(path), bool), "neither a video nor none")
    audio = load_audio(path)
    require(audio.samples.dtype == np.float32, f"samples of type {audio.samples.dtype}")
    require(audio.samples.size <= _MOST_SAMPLES, f"{audio.samples.size} samples")
    try:
        observed = observe(path, Stft(n_fft=64, hop=16)).audio
    except ValueError as error:
        # These name no file, so that the command line says them once of several files, which it
        # names itself.
        if str(error).startswith(("the recording is empty", "expected a recording of at least")):
            return
        raise
    require(np.isfinite(observed.samples).all(), "samples that are not finite")
    require(observed.samples.size <= 4 * _MOST_SAMPLES, f"{observed.samples.size} resampled")
    require(math.isfinite(observed.duration_s), "an infinite length")


def read_frames(path: Path) -> None:
    """Count and decode the frames of a video."""
    from avse_ppl.video.frames import count_video_frames, read_video_frames

    require(count_video_frames(path) >= 0, "a negative number of frames")
    last_s, pixels = -math.inf, 0
    for frame in read_video_frames(path):
        require(last_s < frame.time_s < math.inf, f"frame {frame.index} at {frame.time_s} s")
        last_s, grey = frame.time_s, frame.grey()
        require(grey.dtype == np.uint8 and grey.ndim == 2, f"pixels {grey.dtype}, {grey.ndim}-D")
        pixels += grey.size
        require(pixels <= 16 * _MOST_SAMPLES, f"{pixels} pixels")


# --- posteriors, weights -------------------------------------------------------------------------


def write_posterior(folder: Path) -> list[Path]:
    """Write two small posteriors: exact, and variational with latents and a trace."""
    from avse_ppl import SVI, ComplexNormal, Exact, GaussianSpeech, Scene, Stft, stationary

    wave = make_wave(0.02)[:, 0].astype("float32")
    prior = GaussianSpeech(stft=Stft(n_fft=64, hop=16), gain_sd_db=0.0)
    exact = Exact(draws=2)(Scene(prior, lambda frames: ComplexNormal(0.0, 1.0)), wave, seed=0)
    prior = GaussianSpeech(stft=Stft(n_fft=64, hop=16))
    waves = [wave, wave[:200]]
    svi = SVI(steps=3, draws=2)(Scene(prior, stationary), waves, seed=0)  # type: ignore[arg-type]
    return [exact.save(folder / "0.nc"), svi.save(folder / "1.nc")]


def read_posterior(path: Path) -> None:
    """Load a posterior, listen to it, and take one recording and its interval."""
    from avse_ppl import Posterior

    posterior = Posterior.load(path)
    for r in range(posterior.recordings):
        wave = posterior.enhance(r)
        require(wave.shape == (posterior.n_samples[r],), f"a waveform {wave.shape}")
        require(wave.dtype == np.float32 and np.isfinite(wave).all(), "a waveform with NaN")
        posterior.select(r)
    require(np.isfinite(posterior.sd).all(), "a standard deviation that is not finite")
    require(np.isfinite(posterior.speech).all(), "draws that are not finite")
    if posterior.speech.shape[0] * posterior.speech.shape[1] >= 2:
        posterior.interval(0.9)
    require(isinstance(posterior.warnings, tuple), "warnings that are no tuple")
    posterior.to_arviz()


def write_weights(folder: Path) -> dict[str, list[Path]]:
    """Write folders of weights of three kinds of networks; their files by name."""
    import torch

    from avse_ppl.models.networks import SequentialVaeNetwork, TcvaeNetwork, VaeNetwork
    from avse_ppl.models.weights.io import save_weights
    from avse_ppl.signal.stft import Stft

    stft = Stft(n_fft=64, hop=16)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "vae": (VaeNetwork, {"latent": 3, "hidden": [8]}),
        "tcvae": (TcvaeNetwork, {"latent": 3, "hidden": 8, "encoder_hidden": 8}),
        "dynamic": (SequentialVaeNetwork, {"latent": 3, "prior": "gated"}),
    }
    files: dict[str, list[Path]] = {"weights.safetensors": [], "config.json": []}
    with torch.random.fork_rng():
        for kind, (network, settings) in kinds.items():
            place = folder / kind
            save_weights(
                place, network(freq=stft.freq, **settings), kind, settings, stft, name=kind, card={}
            )
            for name, paths in files.items():
                paths.append(place / name)
    return files


def read_weights(path: Path) -> None:
    """Load a speech prior from the folder that a file lies in."""
    import torch

    from avse_ppl.models.speech.load import load_speech

    prior: Any = load_speech(path.parent)
    values = torch.nn.utils.parameters_to_vector(prior.network.parameters())
    require(values.numel() < 2**24 and bool(values.isfinite().all()), "weights that cannot be")
    for name in ("gain_db", "start_gain_db", "visual_weight"):
        value = getattr(prior, name, 0.0)
        require(isinstance(value, (int, float)) and math.isfinite(value), f"{name} = {value!r}")
    require(isinstance(prior.name, str), f"the name {prior.name!r}")


def write_recalibration(folder: Path) -> list[Path]:
    """Copy the tables that come with the library."""
    from avse_ppl.posterior.recalibration import TABLES

    paths = []
    for i, table in enumerate(sorted(TABLES.glob("*.json"))[:2]):
        paths.append(folder / f"{i}.json")
        paths[-1].write_bytes(table.read_bytes())
    return paths


def read_recalibration(path: Path) -> None:
    """Load a recalibration and take its factors."""
    from avse_ppl.posterior.recalibration import Recalibration

    table = Recalibration.load(path)
    factor = table.factor(np.ones((1, 3, 2), complex), np.ones((1, 3, 2)))
    require(np.isfinite(factor).all() and (factor > 0).all(), "factors that are not positive")
    require(math.isfinite(table.log_scale + table.log_spread), "scales that are not finite")


# --- logs, manifests, caches ---------------------------------------------------------------------

SETTINGS = {"speech": "gaussian", "noise": "stationary", "seed": 0}
_MISSING = Path("missing.wav")  # whose signature is the same everywhere


def write_log(folder: Path) -> list[Path]:
    """Write the log of three finished recordings."""
    from avse_ppl.pipeline.jobs import Job
    from avse_ppl.pipeline.resume_log import ResumeLog

    path = folder / "0.jsonl"
    log = ResumeLog(path, SETTINGS)
    for name in "abc":
        cost = {"wall_s": 1.0, "cpu_s": 1.0, "real_time_factor": 2.0}
        details = {"kind": "exact", "sample_rate_hz": RATE_HZ, "duration_s": 0.5, "cost": cost,
                   "posterior": None, "silent": False}  # fmt: skip
        log.add(Job(_MISSING, folder / f"{name}.wav"), details, ["clipped in 9 places"])
    return [path]


def read_log(path: Path) -> None:
    """Look up finished recordings, report them, add one, and look that up."""
    from avse_ppl.cli.commands.enhance import describe_outcome
    from avse_ppl.pipeline.enhance_jobs import Outcome
    from avse_ppl.pipeline.jobs import Job
    from avse_ppl.pipeline.resume_log import ResumeLog

    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    jobs = [Job(_MISSING, folder / f"{name}.wav") for name in "abcd"]
    for job in jobs:
        job.output.touch()
    log = ResumeLog(path, SETTINGS)
    for job in jobs:
        record = log.find(job)
        if record is None:
            continue
        remarks = tuple(record["warnings"])
        require(all(isinstance(text, str) for text in remarks), f"the warnings {remarks!r}")
        json.dumps(describe_outcome(Outcome(job, "kept", record["details"], remarks)))
    log.add(jobs[3], {"silent": False}, ["said"])
    again = ResumeLog(path, SETTINGS)
    require(again.find(jobs[3]) is not None, "a record that was added is not found again")
    require(set(again.records) >= set(log.records), "records are lost by adding one")


def write_manifest(folder: Path) -> list[Path]:
    """Write a manifest of two mixtures."""
    from avse_ppl.data.manifest import ManifestEntry, save_manifest

    path = folder / "0.json"
    entries = [ManifestEntry("a_rain", "s/a.wav", "n/r.wav", "a", "rain", -5.0, 7),
               ManifestEntry("b_rain", "s/b.wav", "n/r.wav", "b", "rain", 0.0, 8)]  # fmt: skip
    save_manifest(entries, path)
    return [path]


def read_manifest(path: Path) -> None:
    """Load a manifest."""
    from avse_ppl.data.manifest import ManifestEntry, load_manifest

    for entry in load_manifest(path):
        for key, value in asdict(entry).items():
            wanted: Any = ManifestEntry.__dataclass_fields__[key].type
            kinds = {"str": str, "int": int, "float": (int, float)}[str(wanted)]
            fits = isinstance(value, kinds) and not isinstance(value, bool)
            require(fits, f"{key} = {value!r}")
        require(math.isfinite(entry.snr_db), f"snr_db = {entry.snr_db}")
        require(entry.seed >= 0, f"seed = {entry.seed}")


CORPUS_MANIFESTS = {
    ".scp": "utt1 a.wav\nutt-2 b/c d.flac\n\nutt3 /corpus/e.ogg\n",
    ".csv": 'id;audio;text;offset;duration;video\nu1;a.wav;"x;y";0.5;1;a.mkv\nu2;b.wav;;;;\n',
    ".jsonl": "".join(
        json.dumps(row) + "\n"
        for row in (
            {"audio_filepath": "a.wav", "id": "u1", "offset": 0.5, "duration": 1, "text": "ä"},
            {"audio_filepath": "/corpus/b.wav", "video": "b.mkv"},
        )
    ),
}
CUT_LINES = [
    {"id": f"cut{i}", "start": 0.5 * i, "duration": 0.5, "channel": 0, "type": "MonoCut",
     "supervisions": [{"id": "s", "recording_id": "rec", "start": 0, "text": "bin"}],
     "features": {"num_frames": 3}, "recording": {
         "id": "rec", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
         "sampling_rate": RATE_HZ, "num_samples": 48000, "duration": 3.0}}
    for i in range(2)
]  # fmt: skip


def write_corpus_manifests(folder: Path, suffix: str) -> list[Path]:
    """Write manifests of a corpus of one kind: as text, compressed, and of lhotse, too."""
    texts = [CORPUS_MANIFESTS[suffix]]
    if suffix == ".jsonl":
        texts += ["".join(json.dumps(row) + "\n" for row in CUT_LINES),
                  json.dumps(CUT_LINES[0]["recording"]) + "\n"]  # fmt: skip
    paths = []
    for i, text in enumerate(texts):
        paths.append(folder / f"{i}{suffix}")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def read_corpus_manifest(path: Path) -> None:
    """Read a manifest of a corpus, and write that of its enhanced recordings, which is read."""
    from avse_ppl.pipeline import corpus_manifest

    manifest = corpus_manifest.read_corpus_manifest(path)
    names = [item.id for item in manifest.items]
    require(names and len(set(names)) == len(names), f"the ids {names!r}")
    for item in manifest.items:
        require(Path(f"{item.id}.wav").name == f"{item.id}.wav", f"the id {item.id!r}")
        require(math.isfinite(item.start_s) and item.start_s >= 0, f"start_s = {item.start_s}")
        length_s = item.duration_s
        require(length_s is None or 0 < length_s < math.inf, f"duration_s = {length_s}")
    out = path.parent / "out"
    out.mkdir(exist_ok=True)
    files = {name: corpus_manifest.EnhancedFile(out / f"{name}.wav", 8000, RATE_HZ)
             for name in names}  # fmt: skip
    written = corpus_manifest.write_corpus_manifest(manifest, files, out / path.name)
    again = corpus_manifest.read_corpus_manifest(written)
    require([item.id for item in again.items] == names, f"written as {written.read_text()!r}")


def write_cache(folder: Path) -> list[Path]:
    """Write a cache of two clips; the file of its index."""
    from avse_ppl.data.cache import write_speech_cache
    from avse_ppl.data.clips import Clip

    clips = [Clip(folder / "a.wav", "c", "a", "train", video=folder / "a.mkv"),
             Clip(folder / "b.wav", "c", "b", "dev", transcript="yes")]  # fmt: skip
    arrays = [make_wave(0.02)[:, 0], make_wave(0.03)[:, 0]]
    write_speech_cache(clips, arrays, folder / "cache", RATE_HZ, "sum")
    return [folder / "cache.npz", folder / "cache.npy"]


def read_cache(path: Path) -> None:
    """Map a cache and read its clips."""
    from avse_ppl.data.cache import load_cache

    cache = load_cache(path.with_suffix(""))
    require(4000 <= cache.sample_rate_hz < 10**6, f"{cache.sample_rate_hz} Hz")
    total = 0
    for i in range(len(cache)):
        total += cache[i].size
        require(cache[i].dtype == np.float32 and cache[i].ndim == 1, "samples of another kind")
    require(total == len(cache.samples), f"{total} of {len(cache.samples)} samples")
    require(all(isinstance(clip.path, Path) for clip in cache.clips), "clips without a path")
    cache.indices("train")


def write_lips(folder: Path) -> list[Path]:
    """Write a cache of the mouth crops of a clip with two frames and of one without."""
    from avse_ppl.data.cache import PER_FRAME, make_empty_lips_arrays, write_lips_cache
    from avse_ppl.data.clips import Clip

    clips = [Clip(folder / f"{name}.wav", "c", name, "train") for name in "ab"]
    frames = {name: np.zeros((2, *axes), kind) for name, (axes, kind) in PER_FRAME.items()}
    frames["roi"] = np.full((2, 88, 88), 100, np.uint8)
    write_lips_cache(clips, [frames, make_empty_lips_arrays()], folder / "cache", "sum")
    return [folder / "cache.lips.npz"]


def read_lips_cache(path: Path) -> None:
    """Map a cache of mouth crops and take those of each clip."""
    from avse_ppl.data.cache import load_lips

    cache = load_lips(path.with_name("cache"))
    for i in np.flatnonzero(cache.has_frames):
        lips = cache[i]
        require(lips.roi.shape == (len(lips), 88, 88), f"crops {lips.roi.shape}")
        require(
            lips.time_s.dtype.kind == "f" and lips.found.dtype == bool, "columns of another type"
        )


def write_checkpoint(folder: Path) -> list[Path]:
    """Write a checkpoint with the parts of a training's."""
    import torch

    parts: dict[str, Any] = {"optimizer_states": [], "lr_schedulers": [], "loops": {}}
    parts |= {"epoch": 1, "global_step": 8, "state_dict": {"bias": torch.zeros(3)}}
    torch.save(parts, folder / "0.ckpt")
    return [folder / "0.ckpt"]


def read_training(path: Path) -> None:
    """Read a checkpoint to go on from."""
    from avse_ppl.training.checkpoints import read_checkpoint

    require(isinstance(read_checkpoint(path), dict), "a checkpoint of another kind")


def read_clip_features(path: Path) -> None:
    """Read the features of a clip; damaged ones are not there."""
    from avse_ppl.data.clip_features import read_features

    read_features(path)


SEGMENTS = {
    ".csv": 'name,start_s,end_s,tier,recording\nbin,0.02,0.08,words,0\n"a, b",0.1,0.2,,\n',
    ".TextGrid": """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.2
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 1.2
            text = "say ""ja\"""
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.2
        points: size = 1
        points [1]:
            number = 0.3
            mark = "click"
""",
    ".rttm": "SPEAKER talk 1 0.10 0.50 <NA> <NA> anna <NA> <NA>\n"
    "SPEAKER talk 1 0.40 0.30 <NA> <NA> ben <NA> <NA>\n",
}


def write_segments(folder: Path, suffix: str) -> list[Path]:
    """Write a table of segments in UTF-8 and UTF-16."""
    paths = [folder / f"{i}{suffix}" for i in range(2)]
    for path, encoding in zip(paths, ("utf-8", "utf-16"), strict=True):
        path.write_text(SEGMENTS[suffix], encoding=encoding)
    return paths


def read_segment_table(path: Path) -> None:
    """Read a table of segments."""
    from avse_ppl.signal.segments import read_segments

    for segment in read_segments(path):
        require(0 <= segment.start_s < segment.end_s < math.inf, f"a segment {segment}")
        require(isinstance(segment.recording, int | None), f"recording {segment.recording!r}")


def write_crops(folder: Path) -> list[Path]:
    """Write mouth crops as a corpus brings them: MATLAB 7.3 and NumPy."""
    import h5py

    pixels = np.tile(np.linspace(0, 1, 67 * 67, dtype="f4"), (2, 1))
    with h5py.File(folder / "0.mat", "w") as file:
        file["roi"] = pixels
    return [folder / "0.mat"]


def read_crops(path: Path) -> None:
    """Read mouth crops of a corpus."""
    from avse_ppl.data.readers.ntcd_timit import read_roi

    crops = read_roi(path)
    require(crops.dtype == np.uint8 and crops.shape[1:] == (67, 67), f"crops {crops.shape}")


def write_array(folder: Path) -> list[Path]:
    """Write mouth crops as NumPy's."""
    np.save(folder / "0.npy", np.tile(np.linspace(0, 1, 67 * 67, dtype="f4"), (2, 1)))
    return [folder / "0.npy"]


def _weights_file(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: write_weights(folder)[name]


def _cache_file(index: int) -> Callable[[Path], list[Path]]:
    return lambda folder: [write_cache(folder)[index]]


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        one.name: one
        for one in (
            Format("wav", ".wav", "sound", lambda f: write_sound(
                f, ".wav", ("PCM_16", 1), ("FLOAT", 2), ("PCM_U8", 1), ("GSM610", 1), ("ULAW", 1),
                ("PCM_24", 2), ("IMA_ADPCM", 1)), read_sound, weight=6),
            Format("flac", ".flac", "sound", lambda f: write_sound(
                f, ".flac", ("PCM_16", 1), ("PCM_24", 2)), read_sound),
            Format("ogg", ".ogg", "sound", lambda f: write_sound(
                f, ".ogg", ("VORBIS", 1), ("OPUS", 1)), read_sound, weight=5),
            Format("mp3", ".mp3", "sound", lambda f: write_sound(
                f, ".mp3", ("", 1), ("", 2)), read_sound),
            Format("mkv", ".mkv", "video", lambda f: write_video(f, ".mkv"), read_sound),
            Format("mp4", ".mp4", "video", lambda f: write_video(f, ".mp4"), read_sound),
            Format("mkv-video", ".mkv", "video", lambda f: write_video(f, ".mkv"), read_frames),
            Format("mp4-video", ".mp4", "video", lambda f: write_video(f, ".mp4"), read_frames),
            Format("posterior", ".nc", "posterior", write_posterior, read_posterior,
                   mutate.mutate_hdf5, weight=5),
            Format("safetensors", ".safetensors", "weights", _weights_file("weights.safetensors"),
                   read_weights, mutate.mutate_safetensors),
            Format("config", ".json", "config", _weights_file("config.json"), read_weights,
                   mutate.mutate_json, weight=5),
            Format("recalibration", ".json", "tables", write_recalibration, read_recalibration,
                   mutate.mutate_json, weight=2),
            Format("log", ".jsonl", "log", write_log, read_log, mutate.mutate_lines),
            Format("manifest", ".json", "manifest", write_manifest, read_manifest,
                   mutate.mutate_json, weight=3),
            Format("corpus-scp", ".scp", "corpus", lambda f: write_corpus_manifests(f, ".scp"),
                   read_corpus_manifest, weight=2),
            Format("corpus-csv", ".csv", "corpus", lambda f: write_corpus_manifests(f, ".csv"),
                   read_corpus_manifest, weight=2),
            Format("corpus-jsonl", ".jsonl", "corpus",
                   lambda f: write_corpus_manifests(f, ".jsonl"), read_corpus_manifest,
                   mutate.mutate_lines, weight=3),
            Format("cache-index", ".npz", "cache", _cache_file(0), read_cache, mutate.mutate_npz),
            Format("cache-data", ".npy", "cache", _cache_file(1), read_cache, weight=2),
            Format("lips-index", ".npz", "lips", write_lips, read_lips_cache, mutate.mutate_npz,
                   weight=2),
            Format("features", ".npz", "cache", _cache_file(0), read_clip_features,
                   mutate.mutate_npz, weight=1),
            Format("checkpoint", ".ckpt", "checkpoint", write_checkpoint, read_training, weight=1),
            Format("segments-csv", ".csv", "segments", lambda f: write_segments(f, ".csv"),
                   read_segment_table, weight=1),
            Format("segments-textgrid", ".TextGrid", "segments",
                   lambda f: write_segments(f, ".TextGrid"), read_segment_table, weight=2),
            Format("segments-rttm", ".rttm", "segments", lambda f: write_segments(f, ".rttm"),
                   read_segment_table, weight=1),
            Format("crops-mat", ".mat", "crops", write_crops, read_crops, mutate.mutate_hdf5,
                   weight=2),
            Format("crops-npy", ".npy", "crops", write_array, read_crops, weight=1),
        )
    }
)  # fmt: skip
