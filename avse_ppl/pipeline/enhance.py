"""Noisy recordings in, enhanced speech and posteriors out, in memory.

`enhance` and `enhance_batch` take recordings and return what was inferred; an `Enhancer` holds the
models and the method. From files to files: `avse_ppl.pipeline.enhance_files`.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.suitability import average_scores, doubt_recording, score_suitability
from avse_ppl.inference.base import Progress
from avse_ppl.inference.core.build_posterior import name_parts
from avse_ppl.inference.core.setup import check_seeds, resolve_device
from avse_ppl.inference.core.video import check_audio_visual
from avse_ppl.models.predictors.adapters import NO_PREDICTOR
from avse_ppl.models.predictors.checks import PredictorError
from avse_ppl.models.scene import NoiseModel, Scene, SpeechPrior, VisualReliability
from avse_ppl.models.validation import check_positive
from avse_ppl.pipeline.batching import Chunk, group_by_length, split_channels
from avse_ppl.pipeline.catalog import (
    default_inference,
    resolve_inference,
    resolve_noise,
    resolve_predictor,
    resolve_reliability,
    resolve_speech,
    set_time,
)
from avse_ppl.pipeline.channels import find_scaled_copies
from avse_ppl.pipeline.inputs import (
    Observation,
    VideoOptions,
    observe_all,
)
from avse_ppl.pipeline.predictions import predict_batch
from avse_ppl.posterior.combine import (
    crossfade_chunks,
    crossfade_waves,
    scale_posterior,
    stack_recordings,
)
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio, AudioLike, as_audio
from avse_ppl.utils.run_time import BatchProgress
from avse_ppl.utils.version import list_versions

_DRAWS_SAMPLES = 5e7  # waveform samples kept in the draws of one recording


@dataclass(frozen=True)
class Enhanced:
    """One recording, enhanced.

    Parameters
    ----------
    speech
        Posterior mean waveform, at the prior's rate, with the channels of the input.
    posterior
        The posterior; each channel that is not silent is one of its recordings. None where it was
        not asked for, or the recording was silent.
    cost
        ``wall_s``, ``cpu_s`` and ``real_time_factor`` (wall seconds a second of audio) of the
        batch that this recording was enhanced in, its share by length.
    kind
        ``Posterior.kind``, also where the posterior was not kept; None where there was nothing to
        infer.
    warnings
        Remarks of the inference method on its result, see ``Posterior.warnings``, also where
        the posterior was not kept; and what ``suitability`` gives reason to doubt.
    suitability
        Whether the recording is what the models describe, one talker in noise: the probability of
        ``"ordinary"`` and of other classes of sound, and ``expected_si_sdr_db``; see
        `avse_ppl.evaluation.suitability`. None where it is not judged: speech priors without a
        network, recordings under a second, other rates than 16 kHz, silence.
    predictor
        Name of the predictor that took part; None without, or where it failed and was optional.
    """

    speech: Audio
    posterior: Posterior | None
    cost: dict[str, float]
    kind: str | None = None
    warnings: tuple[str, ...] = ()
    suitability: dict[str, float] | None = None
    predictor: str | None = None


def enhance(
    noisy: AudioLike,
    video: Any = None,
    *,
    speech: str | Path | SpeechPrior | None = None,
    noise: str | NoiseModel = "nmf",
    inference: str | Callable[..., Posterior] | None = None,
    seed: int = 0,
    device: str = "auto",
    sample_rate_hz: int | None = None,
    draws: int = 50,
    keep_posterior: bool = True,
    recalibrate: bool = False,
    video_options: VideoOptions | None = None,
    reliability: str | VisualReliability | None = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
    predictor: Any = None,
    predictor_optional: bool = False,
) -> Enhanced:
    """Enhance one recording.

    Parameters
    ----------
    noisy
        Path, the bytes of a file, an ``Audio``, or an array ``(sample,)`` or
        ``(channel, sample)`` with its ``sample_rate_hz``. Recordings at another rate than the
        prior's are resampled, with a warning. Channels have latents of their own and one seed;
        channels that are multiples of each other are inferred once.
    video
        Of the speaker's face: a path (of the recording itself, if it is a video), the bytes of a
        file, or `avse_ppl.video.Lips`.
    speech
        ``"tcvae"``, ``"av-dkf"``, another name (see ``avse-ppl models``), a folder of weights, or a
        prior. None: ``"tcvae"``, or with video ``"av-dkf"``.
    noise
        A name or a sum of them, as in ``"nmf(8)+hum(50)"`` (see
        `avse_ppl.pipeline.catalog.NOISES`), ``"module:function"``, or a function of frames.
    inference
        A name, such as ``"svi"``, ``"em-langevin"`` or ``"numpyro-nuts"`` (see
        `avse_ppl.inference.presets`), or a configured inference method (which then keeps its own
        ``device`` and ``draws``). None: ``"svi"``, or ``"guided"`` where the prior has no density.
    seed
        Of everything random.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    sample_rate_hz
        Rate of an array, Hz.
    draws
        Draws in the posterior.
    keep_posterior
        False saves the time and memory of drawing waveforms.
    recalibrate
        Whether to scale variance and draws so that credible intervals cover as they state, see
        ``Posterior.recalibrated``. The enhanced speech is the same.
    video_options
        How the video is read, see `avse_ppl.pipeline.inputs.VideoOptions`.
    reliability
        Model of visual reliability, frame by frame: ``"soft"``, ``"switching"``, ``"beta"``,
        ``"ungated"``, ``"audio-only"``, or a function, see `avse_ppl.models.visual.reliability`.
        None: ``"soft"``.
    time_limit_s
        Seconds that the inference of a recording may take, its chunks and channels together; what
        there is by then is the result, and its kind and warnings say so. Methods that do not go
        step by step (``"exact"``) are not ended.
    progress
        Called with (step, steps) after each step of the inference, of all batches together.
    predictor
        Another enhancer, whose answer is evidence about the speech: a name of
        `avse_ppl.models.predictors.adapters.PREDICTORS`, the description of an ONNX model,
        ``"module:function"``, a function ``(wave, sample_rate_hz) -> wave``, or a `Predictor`.
        ``"none"``: no predictor. None, if the inference method takes a predictor:
        ``"deepfilternet+predictor"`` where it is installed (the extra ``predictors``), elsewhere
        ``"predictor"``; the result says what took part.
    predictor_optional
        Whether to do without a predictor that is missing or fails, with a warning on the result;
        so it is for the default.

    Returns
    -------
    Enhanced
        Speech, posterior, cost. Recordings over 15 s are enhanced in overlapping chunks, each
        with noise of its own, and cross-faded.

    Raises
    ------
    ValueError
        If the recording is not usable, a name is unknown, the predictor is missing or fails (a
        `PredictorError`), or CUDA is asked for and absent.

    Examples
    --------
    >>> import numpy as np
    >>> noisy = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> enhanced = enhance(noisy, sample_rate_hz=16000, speech="gaussian", noise="stationary")
    >>> enhanced.speech.samples.shape, enhanced.posterior.kind
    ((8000,), 'variational, tempered 0.25')
    """
    track = None if video_options is None else video_options.audio_track
    audio = as_audio(noisy, sample_rate_hz, track=track)
    return enhance_batch(
        [audio], video, speech=speech, noise=noise, inference=inference, seed=seed, device=device,
        draws=draws, keep_posterior=keep_posterior, recalibrate=recalibrate,
        video_options=video_options, reliability=reliability, time_limit_s=time_limit_s,
        progress=progress, predictor=predictor, predictor_optional=predictor_optional,
    )[0]  # fmt: skip


def enhance_batch(
    recordings: Sequence[Audio],
    video: Any = None,
    *,
    speech: str | Path | SpeechPrior | None = None,
    noise: str | NoiseModel = "nmf",
    inference: str | Callable[..., Posterior] | None = None,
    seed: int = 0,
    device: str = "auto",
    draws: int = 50,
    keep_posterior: bool = True,
    recalibrate: bool = False,
    video_options: VideoOptions | None = None,
    reliability: str | VisualReliability | None = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
    predictor: Any = None,
    predictor_optional: bool = False,
) -> list[Enhanced]:
    """Enhance several recordings at once; see `enhance`.

    Recordings of similar length are inferred together, in batches of about a minute of audio.
    ``video`` is a list, one for each recording, with None for those without.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(size=(2, 8000)).astype("float32")
    >>> batch = [Audio(row, 16000) for row in noise]
    >>> len(enhance_batch(batch, speech="gaussian", noise="stationary", draws=2))
    2
    """
    prior = resolve_speech(speech, with_video=video is not None)
    check_audio_visual(prior, video)
    enhancer = Enhancer.of(
        prior, noise, reliability, inference, seed=seed, device=device, draws=draws,
        keep_posterior=keep_posterior, recalibrate=recalibrate, time_limit_s=time_limit_s,
        progress=progress, predictor=predictor, predictor_optional=predictor_optional,
    )  # fmt: skip
    return enhancer.enhance(observe_all(recordings, prior.stft, video, video_options))


@dataclass(frozen=True)
class Enhancer:
    """Models and inference method, checked once, for any number of recordings.

    Parameters
    ----------
    scene
        Speech prior, noise model, and reliability model where there may be video; predictor.
    inference
        Name of an inference method, or a configured one.
    seed, device, draws, keep_posterior, recalibrate, time_limit_s, progress, predictor_optional
        As in `enhance`.
    remarks
        Warnings on every result.
    """

    scene: Scene
    inference: str | Callable[..., Posterior]
    seed: int = 0
    device: str = "auto"
    draws: int = 50
    keep_posterior: bool = True
    recalibrate: bool = False
    time_limit_s: float | None = None
    progress: Progress | None = None
    predictor_optional: bool = False
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        prior: SpeechPrior,
        noise: str | NoiseModel,
        reliability: str | VisualReliability | None,
        inference: str | Callable[..., Posterior] | None,
        predictor: Any = None,
        **settings: Any,
    ) -> Enhancer:
        """Resolve names, and refuse what cannot work before anything is loaded.

        Raises
        ------
        ValueError
            If a name is unknown, the seed is no whole number, the device is absent, the predictor
            is missing, or no recalibration was fitted for these models.
        """
        scene = Scene(prior, resolve_noise(noise), resolve_reliability(reliability))
        method = inference or default_inference(prior)
        self = cls(scene, method, **settings)
        if predictor is None:  # nobody asked for it
            self = replace(self, predictor_optional=True)
        try:
            found: Any = resolve_predictor(predictor, method)
            self = replace(self, scene=replace(scene, predictor=found))
        except PredictorError as error:
            if not self.predictor_optional:
                raise
            self = replace(self, remarks=(f"enhanced without a predictor: {error}",))
        check_seeds([self.seed])
        resolve_inference(method)
        resolve_device(self.device)
        if self.time_limit_s is not None:
            check_positive("time_limit_s", self.time_limit_s)
        if self.recalibrate and not self.keep_posterior:
            raise ValueError("recalibrate changes the posterior only; keep the posterior, too")
        if self.recalibrate and isinstance(method, str):
            from avse_ppl.posterior.recalibration import find_shipped

            find_shipped(routine=method, **{"predictor": NO_PREDICTOR, **name_parts(self.scene)})
        return self

    def enhance(self, observations: Sequence[Observation]) -> list[Enhanced]:
        """Infer the speech in each recording, in batches of chunks of similar length."""
        scene, keep_posterior = self.scene, self.keep_posterior
        if all(one.lips is None for one in observations):
            scene = replace(scene, reliability=None)
        audios = [one.audio for one in observations]
        rate_hz, hop = scene.stft.sample_rate_hz, scene.stft.hop
        draws, longest = self.draws, max((audio.n_samples for audio in audios), default=0)
        if keep_posterior and isinstance(self.inference, str):
            draws = limit_draws(draws, longest)
        method = resolve_inference(
            self.inference, device=self.device, draws=draws, waveforms=keep_posterior
        )
        copies = [find_scaled_copies(audio) for audio in audios]
        chunks = [
            chunk
            for i, (audio, sources) in enumerate(zip(audios, copies, strict=True))
            for chunk in split_channels(
                audio, hop, recording=i, channels={source for source, _ in sources}
            )
        ]
        results: dict[Chunk, Posterior | np.ndarray] = {}
        costs = np.zeros((len(audios), 2))
        kinds: list[str | None] = [None] * len(audios)
        remarks: list[list[str]] = [[] for _ in audios]
        scores: dict[Chunk, dict[str, float] | None] = {}
        predictors: list[str | None] = [None] * len(audios)
        pooled = getattr(method, "takes_predictor", True)
        batches = (
            part
            for batch in group_by_length(chunks, lambda chunk: chunk.n_samples / rate_hz)
            for part in predict_batch(scene, observations, batch, self.predictor_optional, pooled)
        )
        clock = np.array([time.perf_counter(), time.process_time()])
        told = self.progress or getattr(method, "progress", None)
        progress: BatchProgress | None = None
        done, work = 0, sum(chunk.n_samples for chunk in chunks)
        for part in batches:
            batch, observed = part.chunks, part.observed
            own = sum(chunk.n_samples for chunk in batch)
            progress = BatchProgress(done, own, work, told, progress)
            done += own
            # One seed a chunk, so that a recording's result does not depend on the others'.
            seeds = [int(self.seed) + chunk.number for chunk in batch]
            limited = set_time(method, self.share_time(batch, chunks), progress)
            posterior = part.mark(
                limited(part.scene, observed.spectrogram, observed.encode(part.scene), seed=seeds)
            )
            for row, chunk in enumerate(batch):
                scores[chunk] = score_suitability(posterior, row, scene.speech)
            if self.recalibrate:
                posterior = posterior.recalibrated(seed=self.seed)
            for row, chunk in enumerate(batch):
                one = posterior.select(row)
                results[chunk] = one if keep_posterior else one.enhance()
                remarks[chunk.recording] += one.warnings
                kinds[chunk.recording] = posterior.kind
                took_part = posterior.attrs.get("predictor")
                predictors[chunk.recording] = took_part or predictors[chunk.recording]
            # Cost of each chunk, by its length.
            before, clock = clock, np.array([time.perf_counter(), time.process_time()])
            spent = clock - before
            for chunk in batch:
                costs[chunk.recording] += spent * chunk.n_samples / own
        enhanced = []
        for i, audio in enumerate(audios):
            own = {chunk: found for chunk, found in results.items() if chunk.recording == i}
            speech, posterior = assemble_chunks(audio, own, copies[i])
            wall_s, cpu_s = costs[i].tolist()
            cost = {
                "wall_s": wall_s,
                "cpu_s": cpu_s,
                "real_time_factor": wall_s / audio.duration_s,
            }
            suitability = average_scores(
                [(scores[chunk], chunk.n_samples) for chunk in chunks if chunk.recording == i]
            )
            doubts = doubt_recording(suitability, observations[i].lips is not None)
            texts = tuple(dict.fromkeys([*self.remarks, *remarks[i], *doubts]))
            if posterior is not None:  # for reports of it
                facts = {"cost": cost, "suitability": suitability, "versions": list_versions()}
                posterior = replace(posterior, attrs={**posterior.attrs, **facts})
            enhanced.append(
                Enhanced(speech, posterior, cost, kinds[i], texts, suitability, predictors[i])
            )
        return enhanced

    def share_time(self, batch: Sequence[Chunk], chunks: Sequence[Chunk]) -> float | None:
        """Seconds that a batch may take: of each recording in it the share that it has of it."""
        if self.time_limit_s is None:
            return None
        totals = Counter[int]()
        for chunk in chunks:
            totals[chunk.recording] += chunk.n_samples
        return self.time_limit_s * sum(c.n_samples / totals[c.recording] for c in batch)


def assemble_chunks(
    audio: Audio,
    results: Mapping[Chunk, Posterior | np.ndarray],
    copies: Sequence[tuple[int, float]],
) -> tuple[Audio, Posterior | None]:
    """Cross-fade the chunks of each channel of a recording.

    Silent channels stay as they are; a multiple of another channel is that multiple of its result.

    Parameters
    ----------
    audio
        The noisy recording.
    results
        Posterior of each of its chunks, or the waveform alone.
    copies
        Of its channels, see `avse_ppl.pipeline.channels.find_scaled_copies`.
    """
    speech = np.zeros((audio.n_channels, audio.n_samples), np.float32)
    posteriors: dict[int, Posterior] = {}
    for c, channel in enumerate(audio.channels()):
        source, factor = copies[c]
        if source != c:
            speech[c] = factor * speech[source]
            if source in posteriors:
                posteriors[c] = scale_posterior(posteriors[source], factor)
            continue
        chunks = sorted((p for p in results if p.channel == c), key=lambda p: p.begin)
        if not chunks:
            speech[c] = channel.samples  # nothing to infer
            continue
        spans = [(chunk.begin, chunk.end) for chunk in chunks]
        parts: list[Any] = [results[chunk] for chunk in chunks]
        if isinstance(parts[0], Posterior):
            posteriors[c] = crossfade_chunks(parts, spans, audio.n_samples)
            speech[c] = posteriors[c].enhance()
        else:
            speech[c] = crossfade_waves(parts, spans, audio.n_samples)
    samples = speech if audio.samples.ndim == 2 else speech[0]
    whole = stack_recordings(list(posteriors.values())) if posteriors else None
    return Audio(samples, audio.sample_rate_hz), whole


def limit_draws(draws: int, n_samples: int) -> int:
    """Fewer draws of a very long recording, with a warning, so that they fit into memory."""
    fit = max(2, int(_DRAWS_SAMPLES // max(1, n_samples)))
    if draws <= fit:
        return draws
    warnings.warn(
        f"kept {fit} draws instead of {draws}: the recording has {n_samples} samples, and its "
        "draws are to fit into memory",
        UserWarning,
        stacklevel=3,
    )
    return fit
