"""``avse-ppl enhance``, ``compare`` and ``diagnose`` with video."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from avse_ppl import SVI, compare, diagnose, load_speech
from avse_ppl.cli.main import app
from avse_ppl.evaluation.diagnostics.posterior_inputs import observed_audio
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork
from avse_ppl.models.noise.basic import stationary
from avse_ppl.models.scene import Scene
from avse_ppl.models.visual.reliability import Switching, ungated
from avse_ppl.models.weights.io import save_lip_encoder, save_weights
from avse_ppl.pipeline.batching import split_channels
from avse_ppl.pipeline.compare import name_noise_models, name_reliability_models, pair_models
from avse_ppl.pipeline.inputs import Observation, VideoOptions, analyse_chunks
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio, load_audio
from avse_ppl.signal.stft import Stft
from avse_ppl.video import Lips, read_lips
from tests.helpers import BUNDLED

SIZES = {"latent": 2, "hidden": 8, "encoder_hidden": 8, "blocks": 1, "encoder_blocks": 1}
SETTINGS = {**SIZES, "visual": 3, "prior": "visual", "sight_hidden": 4}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Weights of a small prior that sees, of random numbers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "toy"
    network = SequentialVaeNetwork(513, **SETTINGS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_weights(
        folder, network, "dynamic", SETTINGS, Stft(), name="toy", card={}, visual_encoder="lips"
    )
    save_lip_encoder(folder / "lips", LipEncoder(3, 4), name="lips", card={})
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a mouth, a face and a sound, on a machine without a face detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AVSE_PPL_FACE_MODEL", raising=False)
    for name in ("mouth.mkv", "speech.mkv", "speech.flac"):
        shutil.copy(BUNDLED / name, tmp_path)
    return tmp_path


def enhance(*arguments):
    return CliRunner().invoke(app, ["enhance", *arguments])


def samples(path):
    return soundfile.read(path)[0]


def test_audio_and_lips_of_a_clip_are_used(here, toy):
    result = enhance("mouth.mkv", "-o", "a.wav", "--speech", toy, "--show-lips", "lips.png")
    assert result.exit_code == 0, result.stderr
    assert (here / "lips.png").stat().st_size > 1000
    soundfile.write("sound.wav", load_audio("mouth.mkv").mono().samples, 16000)
    assert enhance("sound.wav", "-o", "b.wav", "--speech", toy).exit_code == 0
    assert not np.allclose(samples("a.wav"), samples("b.wav"), atol=1e-4)
    apart = enhance("sound.wav", "-o", "c.wav", "--speech", toy, "--video", "mouth.mkv")
    assert apart.exit_code == 0
    assert np.allclose(samples("a.wav"), samples("c.wav"), atol=1e-4)


def test_a_colon_in_the_name_of_a_clip_hides_no_lips(here, toy):
    assert enhance("mouth.mkv", "-o", "a.wav", "--speech", toy).exit_code == 0
    shutil.copy("mouth.mkv", "14:05 take:1.mkv")
    result = enhance("14:05 take:1.mkv", "-o", "b.wav", "--speech", toy)
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(samples("a.wav"), samples("b.wav"))
    result = enhance("mouth.mkv", "-o", "c.wav", "--speech", toy, "--video-track", "1")
    assert result.exit_code == 2
    assert "expected video track 1 (from 0)" in " ".join(result.stderr.split())


def test_the_reliability_model_is_a_choice(here, toy):
    soundfile.write("sound.wav", load_audio("mouth.mkv").mono().samples, 16000)
    given = ["--speech", toy, "--seed", "3"]
    for name in ("audio-only", "ungated", "switching"):
        posterior = ["--posterior", f"{name}.nc"]
        found = enhance("mouth.mkv", "-o", f"{name}.wav", "--reliability", name, *given, *posterior)
        assert found.exit_code == 0, found.stderr
    assert enhance("sound.wav", "-o", "audio.wav", *given).exit_code == 0
    assert np.allclose(samples("audio-only.wav"), samples("audio.wav"), atol=1e-6)
    assert not np.allclose(samples("ungated.wav"), samples("audio.wav"), atol=1e-4)
    gate = Posterior.load("switching.nc").reliability
    assert gate is not None
    assert 0.0 <= gate.min() <= gate.max() <= 1.0


def test_without_a_detector_it_says_how_to_get_one_or_goes_on_audio_only_fit(here, toy):
    result = enhance("speech.mkv", "-o", "e.wav", "--speech", toy)
    assert result.exit_code == 2
    assert "AVSE_PPL_FACE_MODEL" in result.stderr
    assert not (here / "e.wav").exists()
    result = enhance("speech.mkv", "-o", "e.wav", "--speech", toy, "--video-optional", "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)["files"][0]["warnings"]
    assert any("recording enhanced audio-only" in text for text in said)


def test_a_prior_without_eyes_hears_a_video(here):
    options = ("--speech", "gaussian", "--noise", "stationary")
    assert enhance("speech.mkv", "-o", "e.wav", *options).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("speech.flac", "--video", "face.mp4"), "expected a video at 'face.mp4'"),
        (("speech.flac", "--video", "mouth.mkv", "--speech", "gaussian"), "audio-only and would"),
        (("speech.flac", "--show-lips", "l.png"), "needs a single recording with video"),
        (("mouth.mkv", "--show-lips", "l.jpg"), "expected a name ending in .png"),
        (("mouth.mkv", "--video-offset", "soon"), "a number of seconds or 'auto'"),
        (
            ("mouth.mkv", "--reliability", "invisiblely"),
            "unknown model of reliability 'invisiblely'",
        ),
    ],
)
def test_refusals(here, toy, arguments, text):
    given = arguments if "--speech" in arguments else (*arguments, "--speech", toy)
    result = enhance(*given, "-o", "e.wav")
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.split())
    assert not (here / "e.wav").exists()


def test_one_video_is_not_for_two_recordings(here, toy):
    result = enhance("mouth.mkv", "speech.flac", "-o", "out", "--video", "mouth.mkv")
    assert result.exit_code == 2
    assert "one video for 2 recordings" in " ".join(result.stderr.split())


def test_several_videos_and_sounds_together(here, toy):
    result = enhance("mouth.mkv", "speech.flac", "-o", "out", "--speech", toy)
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in (here / "out").glob("*.wav")) == ["mouth.wav", "speech.wav"]


# --- compare -------------------------------------------------------------------------------------

QUICK = SVI(steps=4, noise_updates=2, draws=100, waveforms=False)
NOISES = ["stationary", "nmf"]


@pytest.fixture(scope="module")
def clip():
    """A talking mouth, and a third of a second of its sound."""
    audio = load_audio(BUNDLED / "mouth.mkv").mono()
    return Audio(audio.samples[8000:13000], 16000), read_lips(BUNDLED / "mouth.mkv").shifted(-0.5)


def make_invisible(lips):
    return Lips.from_crops(np.zeros_like(lips.roi), rate_hz=25)


@pytest.mark.filterwarnings("ignore:the video lasts")
def test_lips_change_a_comparison(clip, toy):
    audio, lips = clip
    options = {"speech": load_speech(toy), "inference": QUICK}
    audio_only_fit = compare(audio, NOISES, **options)
    invisible = compare(audio, NOISES, video=make_invisible(lips), **options)
    assert audio_only_fit.models == invisible.models
    np.testing.assert_array_equal(audio_only_fit.elpd, invisible.elpd)
    seen = compare(audio, NOISES[:1], video=lips, reliability=["audio-only", "ungated"], **options)
    elpd = dict(zip(seen.models, seen.elpd, strict=True))
    np.testing.assert_array_equal(
        elpd["audio-only"], audio_only_fit.elpd[audio_only_fit.models.index(NOISES[0])]
    )
    assert np.abs(elpd["ungated"] - elpd["audio-only"]).max() > 0.01
    assert (audio_only_fit.attrs["video"], seen.attrs["video"]) == (False, True)


def test_noise_models_and_models_of_reliability_are_paired():
    slow = name_reliability_models({"slow": Switching(0.99), "all": ungated})
    models = name_noise_models(NOISES)
    pairs = pair_models(None, models, slow, with_video=True)
    assert list(pairs) == [f"{n}, {r}" for n in NOISES for r in ("slow", "all")]
    assert pairs["nmf, all"].reliability is ungated and pairs["nmf, all"].noise is models["nmf"]
    assert (
        list(pair_models(None, models, name_reliability_models("audio-only"), with_video=True))
        == NOISES
    )
    invisible = pair_models(None, models, name_reliability_models(None), with_video=False)
    assert invisible["nmf"].reliability is None


def test_chunks_of_a_long_recording_have_lips_on_their_clock(clip):
    audio, lips = clip
    long = Audio(np.tile(audio.samples, 52), 16000)  # 16.25 s
    for one, begins_s in ((long, [-0.5, -0.5 - 16.25 / 2]), (audio, [-0.5])):
        chunks = split_channels(one, overlap_s=0.0)
        observed = analyse_chunks(Stft(), [Observation(one, lips)], chunks)
        assert [lips.time_s[0] for lips in observed.lips] == pytest.approx(begins_s)


def test_what_compare_refuses(clip, toy):
    audio, lips = clip
    with pytest.raises(ValueError, match="no video that they could be about"):
        compare(audio, ["nmf"], reliability=["ungated", "audio-only"])
    with pytest.raises(ValueError, match="is audio-only and would"):
        compare(audio, NOISES, video=lips, speech="gaussian")
    with pytest.raises(ValueError, match="unknown model of reliability 'invisiblely'"):
        compare(audio, NOISES, video=lips, speech=toy, reliability="invisiblely")
    with pytest.raises(ValueError, match="model of reliability 'audio-only' stands twice"):
        compare(audio, NOISES, video=lips, speech=toy, reliability=["audio-only", "audio-only"])


def command(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_compare_uses_the_video(here, toy, clip, monkeypatch):
    monkeypatch.setitem(compare.__globals__, "_STEPS", 4)
    soundfile.write("sound.wav", clip[0].samples, 16000, subtype="FLOAT")
    seen = ("--video", "mouth.mkv", "--video-offset", "-0.5", "--speech", toy)
    asked = ("--noise", "stationary", "--reliability", "audio-only", "ungated")
    result = command("compare", "sound.wav", *seen, *asked, "--draws", 100, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    elpd = {row["model"]: row["elpd"] for row in report["models"]}
    assert set(elpd) == {"audio-only", "ungated"} and report["settings"]["video"] is True
    assert abs(elpd["ungated"] - elpd["audio-only"]) > 1.0


def test_compare_uses_a_clip_itself(here, toy, monkeypatch):
    asked = []
    monkeypatch.setitem(compare.__globals__, "observe", lambda audio, stft, video, options: (
        asked.append((video, options)), 1 / 0))  # fmt: skip
    options = ("--noise", "stationary", "nmf", "--video-offset", "auto", "--face", "1")
    command("compare", "mouth.mkv", "--speech", toy, *options)
    command("compare", "mouth.mkv", "--speech", "gaussian", *options)
    assert asked == [
        (Path("mouth.mkv"), VideoOptions(face=1, offset_s="auto")),
        (None, asked[0][1]),
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("speech.flac", "--video", "face.mp4"), "expected a video at 'face.mp4'"),
        (("speech.flac", "--video", "mouth.mkv", "--speech", "gaussian"), "audio-only and would"),
        (("mouth.mkv", "--video-offset", "soon"), "a number of seconds or 'auto'"),
        (
            ("mouth.mkv", "--reliability", "invisiblely"),
            "unknown model of reliability 'invisiblely'",
        ),
        (
            ("speech.flac", "--reliability", "audio-only", "ungated"),
            "no video that they could be about",
        ),
        (("speech.mkv",), "AVSE_PPL_FACE_MODEL"),
    ],
)
def test_compare_refuses_as_enhance_does(here, toy, arguments, text):
    given = arguments if "--speech" in arguments else (*arguments, "--speech", toy)
    result = command("compare", *given, "--noise", "nmf", "stationary")
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in " ".join(result.stderr.split())


# --- diagnose ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the video lasts")
def test_an_audio_visual_posterior_is_diagnosed_with_its_lips(clip, toy):
    audio, lips = clip
    prior = load_speech(toy)
    scene = Scene(prior, stationary, Switching())
    routine = SVI(steps=8, draws=40)
    seen, ear = routine(scene, audio, lips), routine(scene, audio)
    found = diagnose(seen, scene, video=lips)
    assert {"p_law", "p_time", "p_frequency"} <= set(found.figures[0])
    assert diagnose(ear, scene, video=make_invisible(lips)).figures == diagnose(ear, scene).figures
    for posterior, video in ((seen, None), (ear, lips)):
        with pytest.raises(ValueError, match="pass the video and the model of reliability"):
            diagnose(posterior, scene, video=video)
    with pytest.raises(ValueError, match="lips behind a switch, this one has lips that are wei"):
        diagnose(seen, Scene(prior, stationary, ungated), video=lips)
    with pytest.raises(ValueError, match="video goes with the scene"):
        diagnose(seen, video=lips)


def test_the_recording_of_a_posterior_comes_back(clip, toy):
    audio, _ = clip
    scene = Scene(load_speech(toy), stationary)
    two = np.stack([audio.samples, audio.samples[::-1]])
    posterior = SVI(steps=2, draws=2)(scene, two)
    np.testing.assert_allclose(observed_audio(posterior).samples, two, atol=1e-5)
    with pytest.raises(ValueError, match="no single video belongs"):
        observed_audio(SVI(steps=2, draws=2)(scene, [audio.samples, audio.samples[:3000]]))
    assert posterior.observed_spectrogram().recordings == 2


def test_diagnose_tracks_the_clip_again(here, toy):
    made = ("--speech", toy, "--noise", "stationary")
    options = ("--posterior", "p.nc", "--draws", "20")
    assert enhance("mouth.mkv", "-o", "e.wav", *made, *options).exit_code == 0
    invisible = command("diagnose", "p.nc", *made)
    assert invisible.exit_code == 2 and "pass the video" in " ".join(invisible.stderr.split())
    result = command("diagnose", "p.nc", *made, "--video", "mouth.mkv", "--plot", "t.png", "--json")
    assert result.exit_code in (0, 1), result.stderr
    assert "p_law" in json.loads(result.stdout)["recordings"][0]
    assert (here / "t.png").stat().st_size > 1000
    other = command("diagnose", "p.nc", *made, "--video", "mouth.mkv", "--reliability", "switching")
    assert other.exit_code == 2 and "the model of reliability" in " ".join(other.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--noise", "nmf", "--video", "face.mp4"), "expected a video at 'face.mp4'"),
        (("--video", "mouth.mkv"), "conditions the models only; add --noise"),
        (("--noise", "nmf", "--video-offset", "soon"), "a number of seconds or 'auto'"),
        (("--noise", "nmf", "--reliability", "invisiblely"), "unknown model of reliability"),
    ],
)
def test_diagnose_refuses_as_enhance_does(here, toy, arguments, text):
    result = command("diagnose", "p.nc", *arguments, "--speech", toy)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in " ".join(result.stderr.split())
