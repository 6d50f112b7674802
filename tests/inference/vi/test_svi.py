"""What SVI says of itself: convergence, k-hat, posteriors that have no maximum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import (
    NMF,
    SVI,
    ComplexNormal,
    GaussianSpeech,
    Posterior,
    Scene,
    load_speech,
    stationary,
)
from avse_ppl.data import mix
from avse_ppl.inference.core.convergence import NOTICEABLE
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.psis import psis
from avse_ppl.inference.core.resources import limit_threads
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.guides import make_guide
from avse_ppl.inference.vi.khat import K_HAT_LIMIT, TELLING_LATENTS, compute_k_hat, describe_k_hat
from avse_ppl.inference.vi.optimize import (
    Schedule,
    check_finite,
    find_straight,
    update_noise,
)
from avse_ppl.pipeline.catalog import resolve_inference
from avse_ppl.signal.audio import load_audio
from tests.helpers import BUNDLED, STFT, waves

SCENE = Scene(GaussianSpeech(stft=STFT), stationary)
FAST = SVI(steps=20, draws=3, k_hat_draws=25)


# --- settings ------------------------------------------------------------------------------------


def test_a_scene_without_latents_is_not_for_svi():
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda frames: ComplexNormal(0.0, 0.3))
    with pytest.raises(ValueError, match=r"has no latents.*use Exact\(\)"):
        FAST(scene, waves(1), seed=0)


def test_the_rate_is_whole_until_the_last_steps_and_falls_to_nothing():
    schedule = Schedule(1, 200, None)
    rates = torch.stack([schedule.shares(step) for step in range(200)])[:, 0]
    assert (rates[:160] == 1.0).all()
    assert (np.diff(rates[160:]) < 0).all()
    assert 0.0 < rates[-1] < 0.001
    assert schedule.shares(200) == 0.0
    longer = Schedule(1, 200, None, settling=60)
    assert longer.shares(139) == 1.0 > longer.shares(140) and longer.shares(199) > 0.0
    assert Schedule(1, 200, None, settling=90).settling == 66
    found = replace(FAST, steps=60, settling=15, draws=2, waveforms=False)(SCENE, waves(1), seed=0)
    assert found.attrs["settling"] == 15


def test_a_recording_settles_when_its_own_bound_is_level():
    schedule = Schedule(2, 400, torch.tensor([1.0, 1.0]))
    trace = [torch.tensor([0.0, 10.0 * step]) for step in range(50)]
    schedule.look(49, trace)
    assert schedule.converged.tolist() == [True, False]
    assert schedule.shares(49).tolist() == [1.0, 1.0]
    first, second = schedule.shares(70).tolist()
    assert 0.0 < first < second == 1.0
    assert schedule.shares(90).tolist() == [0.0, 1.0]


def test_a_recording_that_would_be_warned_of_searches_on():
    # Of four, one is level, one rises on and on, one is about to end, one has converged before.
    steps = np.arange(150.0)
    rows = torch.from_numpy(np.stack([0 * steps, steps, -3 * np.exp(-steps / 20), steps]))
    trace, bins = list(rows.T), torch.full((4,), 100)  # 2.65 nats are noticeable
    schedule = Schedule(4, 150, None, longest=225)
    schedule.converged[3] = True
    schedule.extend(108, trace[:109], bins, 1.0)
    assert schedule.begin.tolist() == [110] * 4  # not before the end of the search
    schedule.extend(109, trace[:110], bins, 1.0)
    assert schedule.begin.tolist() == [110, 135, 110, 110] and schedule.total == 175
    for step in range(110, 200):
        schedule.extend(step, [*trace, *trace][: step + 1], bins, 1.0)
    assert schedule.begin[1] <= 185 and schedule.total <= 225  # and no further
    assert schedule.shares(140).tolist()[1] == 1.0


def test_a_bound_that_rises_at_the_end_of_the_steps_gets_more():
    # The prior expects a loud floor; what is recorded is far below it.
    def floor(frames):
        return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(torch.tensor(3.0), 1.0)))

    scene = Scene(GaussianSpeech(stft=STFT), floor)
    slow = replace(FAST, steps=80, learning_rate=0.05, tolerance=0, waveforms=False)
    loud, quiet = waves(1)[0] * 1.0, waves(2)[1] * 1.0
    short = replace(slow, extension=0.0)(scene, loud, seed=0)
    assert len(short.trace["elbo"]) == 80 and not short.attrs["converged"]
    assert any("still rising" in text for text in short.warnings)
    longer = replace(slow, extension=5.0)(scene, loud, seed=0)
    n = len(longer.trace["elbo"])
    assert 80 < n < 480 and (n - 80) % 25 == 0
    assert longer.attrs["converged"] and longer.warnings == ()
    np.testing.assert_array_equal(longer.trace["elbo"][:54], short.trace["elbo"][:54])
    # Among others as alone, to the number of steps.
    both = replace(slow, extension=5.0)(scene, [loud, quiet], seed=[0, 1])
    assert np.isfinite(both.trace["elbo"]).sum(0)[0] == n
    for extension in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="extension must be at least 0"):
            SVI(extension=extension)


def test_each_recording_of_a_batch_stops_as_it_does_alone():
    rng = np.random.default_rng(0)
    loud = rng.normal(size=4000) * np.repeat(rng.lognormal(size=40), 100)  # takes longer
    batch = [wave.astype("float32") for wave in (rng.normal(size=4000), loud)]
    routine = SVI(steps=400, draws=3, tolerance=3e-3)
    both = routine(SCENE, batch, seed=[5, 6])
    steps = np.isfinite(both.trace["elbo"]).sum(0)
    assert both.attrs["converged"]
    assert steps[0] != steps[1]
    for row, wave in enumerate(batch):
        alone = routine(SCENE, wave, seed=[5, 6][row])
        assert np.isfinite(alone.trace["elbo"]).sum() == steps[row]
        one = both.select(row)
        np.testing.assert_allclose(one.mean, alone.mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one.speech, alone.speech, rtol=1e-2, atol=1e-3)


# --- k-hat ---------------------------------------------------------------------------------------


def test_k_hat_is_there_with_waveforms_and_changes_nothing():
    with_it = FAST(SCENE, waves(), seed=3)
    without = replace(FAST, k_hat_draws=0)(SCENE, waves(), seed=3)
    lean = replace(FAST, waveforms=False)(SCENE, waves(), seed=3)
    assert None not in [info.k_hat for info in with_it.fit]
    assert [info.k_hat for info in (*without.fit, *lean.fit)] == [None] * 4
    np.testing.assert_array_equal(with_it.speech, without.speech)
    np.testing.assert_array_equal(with_it.mean, lean.mean)


def test_each_recording_has_its_own():
    both = FAST(SCENE, waves(), seed=3)
    alone = FAST(SCENE, waves()[1], seed=4)
    first, second = both.fit
    assert both.select(1).fit == (second,)
    assert second.seed == alone.fit[0].seed == 4
    assert second.k_hat == pytest.approx(alone.fit[0].k_hat, abs=0.02)
    assert first.k_hat != second.k_hat


def test_a_high_k_hat_is_said_and_saved(tmp_path):
    hasty = replace(FAST, steps=2)(SCENE, waves(1), seed=0)
    k = hasty.fit[0].k_hat
    assert k > 0.7
    [text] = [text for text in hasty.warnings if "k-hat" in text]
    assert text.startswith(f"k-hat is {k:.2f}, above 0.7")
    assert "numpyro-nuts" in text
    hasty.save(tmp_path / "posterior.nc")
    loaded = Posterior.load(tmp_path / "posterior.nc")
    assert loaded.fit == hasty.fit


def test_k_hat_of_the_posterior_itself_is_low():
    # One latent a frame and many bins: nearly normal, nearly independent.
    scene = Scene(GaussianSpeech(stft=STFT), lambda frames: ComplexNormal(0.0, 0.3))
    fitted = replace(FAST, steps=300, tolerance=0, k_hat_draws=200)(scene, waves(1), seed=0)
    k = fitted.fit[0].k_hat
    assert k < 0.7
    assert not any("k-hat" in text for text in fitted.warnings)


def test_k_hat_is_of_the_tempered_posterior():
    density = LogDensity(SCENE, STFT.analyse(waves(1)))
    location, log_sd = warm_start(density, RandomStreams(0, 1, torch.device("cpu")))
    time = density.mixture.frames.time

    def found(tempering):
        randoms = RandomStreams(0, 1, torch.device("cpu"))
        guide = make_guide("mean-field", location, log_sd, time, 1, randoms)
        return compute_k_hat(density, guide, randoms, 50, tempering)

    assert found(1.0) != found(0.25)


def test_a_warning_about_k_hat_only_where_a_good_guide_passes():
    # Scales right to 5 % are good: k-hat of few latents says so, that of thousands never.
    def share_that_pass(latents):
        log_ratios = 0.05 * np.sqrt(2 * latents) * np.random.default_rng(0).normal(size=(200, 100))
        return (psis(log_ratios)[1] <= 0.7).mean()

    assert share_that_pass(TELLING_LATENTS) > 0.8
    assert share_that_pass(10 * TELLING_LATENTS) < 0.2
    # The same poor fit, of few latents and of many.
    for n_samples, warned in ((640, True), (16 * (TELLING_LATENTS + 1), False)):
        poor = replace(FAST, steps=2)(SCENE, waves(1, n_samples), seed=0)
        k_hat = poor.fit[0].k_hat
        assert (k_hat is not None) is warned  # of many it would be high, whatever the guide
        if k_hat is not None:
            assert k_hat > K_HAT_LIMIT
            assert describe_k_hat(k_hat) in poor.warnings


# --- convergence ---------------------------------------------------------------------------------


def test_too_few_steps_are_said():
    # The prior expects a loud floor: slow steps take long to get down to that of the recording.
    def floor(frames):
        return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(torch.tensor(3.0), 1.0)))

    scene = Scene(GaussianSpeech(stft=STFT), floor)
    few = replace(FAST, steps=30, learning_rate=0.05, draws=2)(scene, waves(), seed=0)
    assert all(any("still rising" in text for text in info.warnings) for info in few.fit)
    assert not few.attrs["converged"]
    bins = few.mean[0].size
    assert min(info.elbo_rise for info in few.fit) > NOTICEABLE * bins
    many = replace(FAST, steps=300, tolerance=0, waveforms=False)(scene, waves(), seed=0)
    assert not any("still rising" in text for text in many.warnings)
    assert max(info.elbo_rise for info in many.fit) < NOTICEABLE * bins
    brief = replace(FAST, steps=5)(scene, waves(1), seed=0)
    assert brief.fit[0].elbo_rise is None and not brief.attrs["converged"]  # nothing was seen


def test_a_rise_that_is_not_said_changes_powers_by_less_than_a_decibel():
    # 0.0265 nats a bin: what it costs to take exponential laws for others, 1 dB louder or quieter.
    ratio = 10 ** (np.array([-1.0, 1.0]) / 10)
    assert np.mean(np.log(ratio) + 1 / ratio - 1) == pytest.approx(NOTICEABLE, rel=0.01)
    speech, rain = (load_audio(BUNDLED / f"{name}.flac").samples for name in ("speech", "rain"))
    mixture = mix(speech[8000:20000], rain, 0.0, seed=0).mixture
    scene = Scene(load_speech("tcvae"), NMF(2))
    default = resolve_inference("svi", draws=2)(scene, mixture, seed=0)
    assert default.warnings == ()
    bins = default.mean[0].size
    assert default.fit[0].elbo_rise < NOTICEABLE * bins * default.kind.tempering


# --- no maximum ----------------------------------------------------------------------------------


def test_a_posterior_without_bound_is_refused():
    # An exponential prior has a density at 0, and so has a power of 0 in a bin without a sound.
    def floorless(frames):
        with pyro.plate("freq", frames.freq, dim=-2):
            return ComplexNormal(0.0, pyro.sample("level", dist.Exponential(torch.tensor(1.0))))

    nothing = GaussianSpeech(torch.full((33,), 1e-30), gain_sd_db=0.0, stft=STFT)
    mixture = STFT.analyse(waves(1))
    mixture.values[:, 0] = 0.0
    routine = replace(FAST, steps=100, learning_rate=0.5, tolerance=0)
    with pytest.raises(ValueError, match=r"rises without end as 'level' runs off: improper or unb"):
        routine(Scene(nothing, floorless), mixture, seed=0)


def test_what_goes_straight_is_told_from_what_is_pushed_about():
    schedule = Schedule(recordings=2, steps=150, tolerance=None)
    schedule.begin = torch.tensor([110, 60])
    pushed = torch.tensor([1.0, 1.0, 1.0, -1.0]).repeat(38)[:150, None].expand(150, 2)
    steps = 0.3 * torch.stack((torch.full((150, 2), -0.8), pushed), -1)
    steps[60:, 1] = 0.0  # it settles
    way = torch.cat((torch.zeros(1, 2, 2), steps.cumsum(0)))
    found = find_straight(list(way[::25]), schedule, 0.3)
    assert found.tolist() == [[True, False], [True, False]]
    assert not find_straight(list(way[:1]), schedule, 0.3).any()  # before the first window


def test_a_bound_that_is_no_number_is_refused():
    trace = [torch.zeros(2), torch.tensor([0.0, float("nan")])]
    with pytest.raises(ValueError, match=r"is not finite: improper or unbounded posterior. Give"):
        check_finite(trace)

    def overflowing(frames):
        level = pyro.sample("level", dist.LogNormal(torch.tensor(-0.82), 1.0))
        return ComplexNormal(0.0, 0.3 + (200.0 * level).exp())

    scene = Scene(GaussianSpeech(stft=STFT), overflowing)
    with pytest.raises(ValueError, match="is not finite: improper or unbounded"):
        replace(FAST, steps=60, learning_rate=2.0, tolerance=0)(scene, waves(1), seed=0)


def test_no_scale_is_wider_than_twice_that_of_the_prior():
    # Components of noise that a nearly clean recording does not need are free to wander.
    speech, rain = (load_audio(BUNDLED / f"{name}.flac").samples for name in ("speech", "rain"))
    mixture = mix(speech[8000:20000], rain, 40.0, seed=0).mixture
    prior = load_speech("tcvae")
    density = LogDensity(Scene(prior, NMF(4)), prior.stft.analyse(mixture))
    streams = RandomStreams(0, 1, torch.device("cpu"))
    with limit_threads(density.mixture):
        guide, _ = SVI(steps=40, tolerance=0).fit_guide(density, streams)
    scales = guide.layout.split(guide.log_sd.detach().exp())
    ratios = {site.name: float((scales[site.name] / site.spread).max()) for site in density.sites}
    assert max(ratios.values()) <= 2.0 + 1e-5
    assert ratios["noise.activations"] > 1.9  # some come to it


def test_far_from_the_start_alone_is_no_reason():
    # A very quiet noise lies many prior deviations from the prior's median: found, not refused.
    def floor(frames):
        return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(torch.tensor(8.0), 0.1)))

    scene = Scene(GaussianSpeech(stft=STFT), floor)
    posterior = replace(FAST, steps=300, learning_rate=0.2, tolerance=0)(scene, waves(1), seed=0)
    assert np.log(posterior.latents["floor"]).mean() < 7.0


# --- closed-form updates of the noise ------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(320, 320), (320, 200)])
def test_the_updates_raise_the_joint_density(lengths):
    rows = [wave[:n] for wave, n in zip(waves(), lengths, strict=True)]
    scene = Scene(GaussianSpeech(stft=STFT), NMF(2))
    density = LogDensity(scene, STFT.analyse(rows))
    location, log_sd = warm_start(density, RandomStreams(0, 2, torch.device("cpu")))
    frames = density.mixture.frames.time
    guide = make_guide(
        "mean-field", location, log_sd, frames, 1, RandomStreams(0, 2, torch.device("cpu"))
    )

    def joint():
        values, _ = density.constrain(guide.layout.split(guide.location.detach()))
        found = density.joint(values)
        return found.likelihood + found.prior

    before, speech = joint(), location["speech.gain"].clone()
    update_noise(density, guide, 0)
    assert torch.equal(joint(), before)
    update_noise(density, guide, 5)
    after = joint()
    assert (after > before).all()
    assert torch.equal(guide.layout.split(guide.location.detach())["speech.gain"], speech)


def test_noise_without_updates_is_left_alone():
    density = LogDensity(SCENE, STFT.analyse(waves(1)))
    location, log_sd = warm_start(density, RandomStreams(0, 1, torch.device("cpu")))
    time, randoms = density.mixture.frames.time, RandomStreams(0, 1, torch.device("cpu"))
    guide = make_guide("mean-field", location, log_sd, time, 1, randoms)
    before = guide.location.detach().clone()
    update_noise(density, guide, 5)
    assert torch.equal(guide.location.detach(), before)


def test_they_take_the_place_of_steps():
    speech, rain = (load_audio(BUNDLED / f"{name}.flac").samples for name in ("speech", "rain"))
    mixture = mix(speech[8000:20000], rain, 0.0, seed=0).mixture
    scene = Scene(load_speech("tcvae"), NMF(2))
    early = replace(FAST, learning_rate=0.15, tempering=1.0, waveforms=False)
    elbo = {
        updates: replace(early, noise_updates=updates)(scene, mixture, seed=0)
        .trace["elbo"][-5:]
        .mean()
        for updates in (0, 20)
    }
    assert elbo[20] > elbo[0] + 30


def test_without_an_encoder_there_are_none():
    scene = Scene(GaussianSpeech(stft=STFT), NMF(2))
    none, some = (
        replace(FAST, noise_updates=updates)(scene, waves(1), seed=0) for updates in (0, 20)
    )
    np.testing.assert_array_equal(none.speech, some.speech)
