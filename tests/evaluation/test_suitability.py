"""Suitability: ordinary recordings pass, what the models do not describe is warned of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from avse_ppl import Audio, GaussianSpeech, Posterior, Stft, diagnose, enhance_batch
from avse_ppl.evaluation.suitability import (
    SuitabilityModel,
    average_scores,
    describe_posterior,
    doubt_recording,
    score_suitability,
)
from avse_ppl.evaluation.suitability.describe import find_pitch, measure_clipping, smooth_rows
from avse_ppl.evaluation.suitability.judge import ORDINARY, REMARKS, SI_SDR, TABLE
from avse_ppl.models.scene import Scene
from avse_ppl.pipeline.catalog import resolve_noise, resolve_speech
from avse_ppl.report.verdicts import judge_recording
from avse_ppl.signal.audio import load_audio
from tests.helpers import BUNDLED, RATE_HZ


def read(name: str) -> np.ndarray:
    wave = load_audio(BUNDLED / name).samples.astype(np.float64)
    return wave[:47648] / wave[:47648].std()


def make_recordings() -> dict[str, np.ndarray]:
    """A recording of each kind, from the bundled clips; level 0.1."""
    speech, other = read("speech.flac"), read("mouth.mkv")
    rain, tap = read("rain.flac"), read("running_tap.flac")
    noisy = speech + 0.5 * rain
    limit = np.quantile(np.abs(noisy), 0.8)
    waves = {
        "ordinary, rain": noisy,
        "ordinary, tap": other + 0.3 * tap,
        "ordinary, alone": speech + 0.01 * tap,
        "ordinary, clean": other,
        "two talkers": speech + other,
        "reversed speech": other[::-1],  # one in ten is missed, speech.flac among them
        "no speech": np.random.default_rng(0).normal(size=len(speech)),
        "clipped": np.clip(noisy, -limit, limit),
    }
    return {name: (0.1 * wave / wave.std()).astype("float32") for name, wave in waves.items()}


@pytest.fixture(scope="module")
def found():
    waves = make_recordings()
    batch = [Audio(wave, RATE_HZ) for wave in waves.values()]
    return dict(zip(waves, enhance_batch(batch, draws=10, device="cpu"), strict=True))


@pytest.mark.parametrize(
    "name", ["ordinary, rain", "ordinary, tap", "ordinary, alone", "ordinary, clean"]
)
def test_ordinary_recordings_are_not_warned_of(found, name):
    assert not set(REMARKS.values()) & set(found[name].warnings), found[name].suitability
    assert found[name].suitability[SI_SDR] > 3


@pytest.mark.parametrize("name", ["two talkers", "reversed speech", "no speech", "clipped"])
def test_what_the_models_do_not_describe_is_warned_of(found, name):
    assert REMARKS[name] in found[name].warnings, found[name].suitability


def test_scores_are_probabilities_and_a_level(found):
    for one in found.values():
        scores = dict(one.suitability)
        assert -40 < scores.pop(SI_SDR) < 40
        assert sum(scores.values()) == pytest.approx(1, abs=1e-3)


def test_diagnose_does_not_pass_white_noise_and_passes_speech_in_rain(found):
    scene = Scene(resolve_speech("tcvae"), resolve_noise("nmf"))
    noise = diagnose(found["no speech"].posterior, scene, device="cpu")
    assert REMARKS["no speech"] in noise.warnings[0] and not noise.passed[0]
    speech = diagnose(found["ordinary, rain"].posterior, scene, device="cpu")
    assert speech.passed[0], speech.warnings
    assert speech.figures[0][ORDINARY] > 0.5 and "misfit_law" in speech.figures[0]


def test_diagnose_needs_no_scene_to_say_what_the_command_line_says(found):
    one = found["no speech"].posterior
    bare = replace(one, attrs={k: v for k, v in one.attrs.items() if k != "suitability"})
    for posterior in (one, bare):  # of enhance, and as an inference method returns it
        assert REMARKS["no speech"] not in posterior.warnings
        diagnostics = diagnose(posterior)
        assert REMARKS["no speech"] in diagnostics.warnings[0]
        texts = [verdict.text for verdict in judge_recording(posterior, diagnostics, 0)]
        assert texts.count(REMARKS["no speech"]) == 1
    unknown = replace(bare, attrs={**bare.attrs, "speech": "gaussian"})
    assert REMARKS["no speech"] not in diagnose(unknown).warnings[0]


# --- when it is judged ---------------------------------------------------------------------------


def make_posterior(n: int = 2 * RATE_HZ, stft: Stft | None = None, level: float = 1.0) -> Posterior:
    stft = stft or Stft()
    waves = level * np.random.default_rng(0).normal(size=(1, n)).astype("float32")
    spectrogram = stft.analyse(waves)
    mixture = (spectrogram.values * spectrogram.scale[:, None, None]).numpy()
    return Posterior(
        0.5 * mixture, 0.25 * np.abs(mixture) ** 2, mixture, np.zeros((1, 0, 1, n)), {}, (n,),
        stft, "exact",
    )  # fmt: skip


def test_priors_without_a_network_are_not_judged():
    posterior = make_posterior()
    assert score_suitability(posterior, speech=GaussianSpeech()) is None
    assert score_suitability(posterior, speech=resolve_speech("tcvae")) is not None


@pytest.mark.parametrize(
    "posterior",
    [
        make_posterior(RATE_HZ - 1),
        make_posterior(stft=Stft(n_fft=256, hop=64)),
        make_posterior(stft=Stft(sample_rate_hz=8000)),
        make_posterior(level=0.0),
    ],
)
def test_what_cannot_be_judged_has_no_scores(posterior):
    assert score_suitability(posterior) is None


def test_a_recording_is_judged_by_its_chunks():
    chunks = [
        ({"ordinary": 1.0, SI_SDR: 4.0}, 3.0),
        (None, 9.0),
        ({"ordinary": 0.2, SI_SDR: 0.0}, 1),
    ]
    assert average_scores(chunks) == {"ordinary": 0.8, SI_SDR: 3.0}
    assert average_scores([(None, 1.0)]) is None and doubt_recording(None) == []


def test_with_video_a_second_talker_is_noise():
    model = SuitabilityModel.load()
    scores = {**dict.fromkeys(model.classes, 0.0), "two talkers": 1.0, SI_SDR: 9.0}
    assert model.describe_doubts(scores) == [REMARKS["two talkers"]]
    assert model.describe_doubts(scores, with_video=True) == []


def test_a_separation_that_fails_is_warned_of():
    model = SuitabilityModel.load()
    scores = {**dict.fromkeys(model.classes, 0.0), ORDINARY: 1.0}
    [text] = model.describe_doubts({**scores, SI_SDR: -12.3})
    assert text.startswith("speech and noise are probably not well separated here: about -12 dB")
    assert model.describe_doubts({**scores, SI_SDR: 9.0}) == []


# --- statistics ----------------------------------------------------------------------------------


def test_the_description_does_not_depend_on_the_level():
    loud, quiet = (describe_posterior(make_posterior(level=level)) for level in (1.0, 1e-3))
    for name, value in loud.items():
        assert quiet[name] == pytest.approx(value, abs=0.02), name


def test_the_asymmetry_of_speech_flips_with_time():
    found = {}
    for name, wave in (("as is", read("speech.flac")), ("reversed", read("speech.flac")[::-1])):
        stft = Stft()
        spectrogram = stft.analyse(wave[None].astype("float32"))
        values = spectrogram.values.numpy()
        posterior = Posterior(
            values, 1e-6 + np.zeros(values.shape), values, np.zeros((1, 0, 1, len(wave))), {},
            (len(wave),), stft, "exact",
        )  # fmt: skip
        found[name] = describe_posterior(posterior)
    onsets = {name: one["mixture_onsets_2"] for name, one in found.items()}
    assert onsets["as is"] > 0.05 and onsets["reversed"] < -0.05


def test_pitch_is_the_first_high_peak():
    time = np.arange(1024) / RATE_HZ
    tones = np.array(
        [sum(np.sin(2 * np.pi * k * hz * time) for k in (1, 2, 3)) for hz in (100, 250)]
    )
    strength, lag = find_pitch(tones, 40, 229)
    assert list(lag) == [160, 64] and (strength > 0.9).all()


def test_clipping_is_seen_below_full_scale():
    wave = np.random.default_rng(0).normal(size=16000)
    assert measure_clipping(wave) < 0.02
    assert measure_clipping(0.3 * np.clip(wave, -1, 1)) > 0.2


def test_a_moving_average_keeps_constants_and_length():
    assert np.allclose(smooth_rows(np.ones((2, 50)), 9), 1)
    assert smooth_rows(np.arange(12.0)[None], 5)[0, 5] == pytest.approx(5.0)


# --- the table -----------------------------------------------------------------------------------


def test_the_shipped_table_has_a_remark_for_each_class():
    model = SuitabilityModel.load()
    assert model.classes[0] == ORDINARY and set(model.classes[1:]) == set(REMARKS)
    assert set(model.names) == set(describe_posterior(make_posterior()))
    assert min(model.margins.values()) > -1 and model.least_si_sdr_db <= 0


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda table: table.pop("weights"), "no usable 'weights'"),
        (lambda table: table["weights"].pop(), "expected weights of shape"),
        (lambda table: table.update(center=["a"]), "no usable"),
    ],
)
def test_a_table_that_is_something_else_is_refused(spoil, text, tmp_path):
    table = json.loads(TABLE.read_text())
    spoil(table)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=text):
        SuitabilityModel.load(path)
