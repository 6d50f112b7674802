"""The amortized method: the law of a network, as it states it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import Amortized, GaussianSpeech, Scene, enhance, load_audio, load_speech, stationary
from avse_ppl.inference import amortized
from avse_ppl.models.networks import LipEncoder
from avse_ppl.models.predictors.adapters import resolve_predictor
from avse_ppl.models.predictors.network import NetworkPredictor, load_predictor
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.pipeline.compare import check_draws_all
from avse_ppl.posterior.approximation import Approximation
from tests.contract.cast import make_predictor
from tests.helpers import BUNDLED, STFT, waves

PREDICTOR = make_predictor()
SPEECH = GaussianSpeech(stft=STFT)
SCENE = Scene(SPEECH, stationary)
METHOD = Amortized(PREDICTOR, draws=4)


def unusable(*_):
    raise AssertionError("the model was evaluated")


def test_mean_and_variance_are_those_of_the_network():
    posterior = METHOD(SCENE, waves(1), seed=0)
    mixture = STFT.analyse(waves(1))
    mean, log_error = PREDICTOR.predict_on(mixture)
    scale = mixture.scale[:, None, None]
    np.testing.assert_allclose(posterior.mean, (mean * scale).numpy(), rtol=1e-4, atol=1e-6)
    expected = (log_error.exp() * scale.square()).numpy()
    np.testing.assert_allclose(posterior.variance, expected, rtol=1e-4)


def test_waveforms_are_drawn_from_that_law():
    posterior = replace(METHOD, draws=200)(SCENE, waves(1), seed=0)
    drawn = posterior.speech[0, :, 0]
    gap = drawn.mean(0) - posterior.enhance(0)
    assert np.abs(gap).max() < 6 * drawn.std(0).max() / np.sqrt(200)
    assert drawn.std(0).min() > 0


def test_prior_noise_and_a_pool_play_no_part():
    plain = METHOD(SCENE, waves(1), seed=0)
    other = METHOD(Scene(SPEECH, unusable), waves(1), seed=0)
    np.testing.assert_array_equal(plain.speech, other.speech)
    assert (plain.attrs["speech"], plain.attrs["noise"]) == ("unused", "unused")
    assert not plain.latents
    assert not METHOD.draws_all_latents(SCENE)


def test_the_network_of_the_scene_is_run_once():
    calls = []

    class Counting(type(PREDICTOR)):
        def predict_law(self, wave):
            calls.append(self.causal)
            return super().predict_law(wave)

    own = Counting(PREDICTOR.network, PREDICTOR.stft, causal=True, name="mine")
    scene = replace(SCENE, predictor=Predictor(own))
    posterior = Amortized(draws=4)(scene, waves(1), seed=0)
    assert calls == [False]  # the whole recording is there
    assert posterior.attrs["predictor"] == "mine"
    assert posterior.kind == "amortized, one pass of a network" and not posterior.kind.pooled
    assert Approximation.parse(str(posterior.kind)).method == posterior.kind.method
    np.testing.assert_array_equal(posterior.mean, METHOD(SCENE, waves(1), seed=0).mean)


@pytest.mark.parametrize("given", [PREDICTOR, Predictor(PREDICTOR, name=PREDICTOR.name)])
def test_enhance_runs_the_network_once(given, monkeypatch):
    calls = []
    plain = NetworkPredictor.predict_law
    monkeypatch.setattr(
        NetworkPredictor, "predict_law", lambda self, wave: calls.append(0) or plain(self, wave)
    )
    found = enhance(
        waves(1)[0], sample_rate_hz=16000, speech=SPEECH, noise=stationary, inference="amortized",
        predictor=given, draws=2,
    )  # fmt: skip
    assert calls == [0]
    assert found.posterior.kind == "amortized, one pass of a network"
    assert found.predictor == found.posterior.attrs["predictor"] == PREDICTOR.name


def test_a_predictor_of_another_kind_is_said_to_be_unused():
    scene = replace(SCENE, predictor=Predictor(unusable, name="theirs"))
    assert any("'theirs' was not used" in text for text in METHOD(scene, waves(1)).fit[0].warnings)
    assert not any("not used" in text for text in METHOD(SCENE, waves(1)).fit[0].warnings)


def test_an_answer_that_cannot_be_speech_in_it_is_flagged():
    silent = replace(PREDICTOR, network=SilentNetwork())
    (fit,) = Amortized(silent, draws=1)(SCENE, waves(1)).fit
    assert any("it is silent beside the mixture" in text for text in fit.warnings)


class SilentNetwork(torch.nn.Module):
    def forward(self, mixture, causal=False):
        found = PREDICTOR.network(mixture, causal)
        return found._replace(speech=0.0 * found.speech)


def test_recordings_of_different_length_share_a_batch():
    both = METHOD(SCENE, [waves()[0], waves()[1][:200]], seed=3)
    alone = METHOD(SCENE, waves()[1][:200], seed=4)
    assert (both.variance > 0).all() and np.isfinite(both.mean).all()
    np.testing.assert_allclose(both.enhance(1), alone.enhance(0), atol=1e-5)
    np.testing.assert_allclose(both.select(1).speech[..., :200], alone.speech, atol=1e-5)


# --- lips -----------------------------------------------------------------------------------------


def noisy(count=1):
    speech = load_audio(BUNDLED / "speech.flac").samples[8000:16000]
    return [speech + 0.5 * speech.std() * wave for wave in waves(count, 8000)]


def see(predictor=None, gate=1.0):
    """Posterior of a mixture with features of lips under a gate."""
    speech = load_speech("av-dkf")
    mixture = speech.stft.analyse(noisy())
    visual = torch.randn(1, 65, mixture.frames.time, generator=torch.Generator().manual_seed(0))
    visual[:, 0] = gate
    scene = Scene(speech, stationary)
    return Amortized(predictor, draws=2, device="cpu")(scene, mixture.with_visual(visual), seed=0)


def test_the_shipped_network_that_sees_is_taken_where_there_are_lips():
    seen, unreliable = see(), see(gate=0.0)
    assert seen.attrs["predictor"] == unreliable.attrs["predictor"] == "av-predictor"
    assert not [text for text in seen.warnings if "video" in text]
    assert np.abs(seen.mean - unreliable.mean).max() > 1e-3 * np.abs(seen.mean).max()
    # Lips that are not reliable leave what the network hears, bit for bit.
    heard = Amortized(draws=2, device="cpu")(
        Scene(load_speech("av-dkf"), stationary, predictor=resolve_predictor("av-predictor")),
        noisy(),
        seed=0,
    )
    np.testing.assert_array_equal(unreliable.mean, heard.mean)


def test_each_recording_of_a_batch_has_its_own_lips():
    speech = load_speech("av-dkf")
    both = speech.stft.analyse(noisy(2))
    visual = torch.randn(2, 65, both.frames.time, generator=torch.Generator().manual_seed(0))
    visual[:, 0] = torch.tensor([1.0, 0.0])[:, None]
    method, scene = Amortized(draws=2, device="cpu"), Scene(speech, stationary)
    found = method(scene, both.with_visual(visual), seed=0)
    for row in range(2):
        alone = method(scene, both.select(row).with_visual(visual[row : row + 1]), seed=row)
        np.testing.assert_allclose(found.mean[row], alone.mean[0], rtol=1e-4, atol=1e-4)


def test_lips_that_a_network_cannot_take_are_said_to_be_unused():
    heard, seeing = load_predictor("predictor"), load_predictor("av-predictor")
    texts = see(heard).warnings
    assert "the video was not used: the network 'predictor' only hears" in texts
    torch.manual_seed(0)
    other = replace(seeing, visual_encoder=LipEncoder())
    (text,) = [text for text in see(other).warnings if "video" in text]
    assert text.endswith("'av-dkf' has another visual encoder than its network")
    np.testing.assert_array_equal(see(other).mean, see(gate=0.0).mean)


def test_without_the_network_that_sees_it_only_hears(monkeypatch):
    monkeypatch.setattr(amortized, "is_shipped", lambda name: False)
    posterior = see()
    assert posterior.attrs["predictor"] == "predictor"
    assert [text for text in posterior.warnings if "only hears" in text]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="tempering must be 1 for 'amortized'"):
        Amortized(PREDICTOR, tempering=0.25)
    other = Scene(GaussianSpeech(), stationary)
    with pytest.raises(ValueError, match="was trained with hop 16 at 16000 Hz; the scene has hop"):
        METHOD(other, waves(1)[0].repeat(10))


def test_noise_models_cannot_be_compared_by_what_does_not_use_them():
    with pytest.raises(ValueError, match="'amortized' does not use the noise model"):
        check_draws_all(METHOD, SCENE)
