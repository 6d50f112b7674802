"""The exact posterior against integrals done by hand, and the other routines against it.

Distances are in posterior standard deviations (sd). An average over D draws of a latent is itself
off by ``sd / sqrt(D)``, so that two routines of 400 draws each differ by 0.07 sd before either is
wrong; over some hundred latents the largest such difference is about four times that.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats

from avse_ppl import EM, NMF, SVI, ComplexNormal, Exact, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import STFT

DRAWS = 400
MONTE_CARLO = 4 * np.sqrt(2 / DRAWS)  # sd; see above
DB = np.log(10) / 10


def make_spectrum():
    """0 dB up to 500 Hz, -9 dB an octave above, unit mean, ``(freq, 1)``."""
    octaves = np.log2(np.maximum(np.arange(33) * 250.0, 500.0) / 500.0)
    power = 10 ** (-0.9 * octaves)
    return (power / power.mean())[:, None]


def waves(count=2, n_samples=480, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def are_near(one, other, tolerance):
    """Whether two posteriors agree, tolerance in sd of the mean and as a fraction of the sd."""
    gap = np.abs(one.mean - other.mean) / other.sd
    ratio = np.abs(one.sd / other.sd - 1)
    return gap.max() < tolerance and ratio.max() < tolerance


def log_likelihood(power, values):
    """Of each frame: sum over its bins of the log density of N_c(0, power)."""
    return (-np.log(np.pi * power) - np.abs(values) ** 2 / power).sum(axis=-2)


# --- exact: closed form --------------------------------------------------------------------------


def test_without_latents_it_is_the_wiener_filter():
    scene = reference_scene(True, noise_power=0.3, gain_sd_db=0.0, stft=STFT)
    wave = 0.01 * waves()
    posterior = Exact(draws=2)(scene, wave, seed=0)
    gain = make_spectrum() / (make_spectrum() + 0.3)
    values = STFT.forward(torch.from_numpy(wave)).numpy()
    scale_squared = (np.abs(values) ** 2).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(posterior.mean, gain * values, rtol=1e-4, atol=1e-7)
    expected = np.broadcast_to(gain * 0.3 * scale_squared, values.shape)
    np.testing.assert_allclose(posterior.variance, expected, rtol=1e-4)
    np.testing.assert_allclose(posterior.mixture, values, rtol=1e-4, atol=1e-7)
    assert posterior.latents == {}
    assert posterior.kind == "exact"


def test_a_noise_with_a_mean_is_taken_off_first():
    def hum(frames):
        return ComplexNormal(torch.tensor(0.5 + 0.2j), 0.3 + 0.01 * frames.freq_hz / 100)

    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), hum)
    mixture = STFT.analyse(waves(1))
    posterior = Exact(draws=2)(scene, mixture, seed=0)
    noise = 0.3 + 0.01 * np.arange(33)[:, None] * 2.5
    gain = make_spectrum() / (make_spectrum() + noise)
    expected = float(mixture.scale) * gain * (mixture.values[0].numpy() - (0.5 + 0.2j))
    np.testing.assert_allclose(posterior.mean[0], expected, rtol=1e-4, atol=1e-6)


def test_louder_in_louder_out():
    scene = reference_scene(True, stft=STFT)
    quiet, loud = (Exact(draws=3)(scene, c * waves(1), seed=0) for c in (1.0, 1000.0))
    np.testing.assert_allclose(loud.mean, 1e3 * quiet.mean, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(loud.variance, 1e6 * quiet.variance, rtol=1e-3)
    np.testing.assert_allclose(loud.speech, 1e3 * quiet.speech, rtol=1e-3, atol=1e-1)


# --- exact: integrals ----------------------------------------------------------------------------


@pytest.mark.parametrize("tempering", [1.0, 0.25])
def test_a_frame_is_a_one_dimensional_integral(tempering):
    scene = reference_scene(True, noise_power=0.3, gain_sd_db=8.0, stft=STFT)
    simulated = simulate(scene, 480, seed=3)
    draws = 1500
    exact = Exact(draws=draws, waveforms=False, tempering=tempering)
    posterior = exact(scene, simulated.mixture, seed=0)
    z = posterior.latents["speech.gain"][0, :, 0, 0]  # (draw, time)
    for t in (0, 20):
        x = simulated.mixture.values[0, :, t].numpy()
        norm, e_z, e_zz, mean, second, within = integrate_gain(x, 0.3, 8.0, tempering)
        assert norm > 0
        variance = within + second - np.abs(mean) ** 2
        np.testing.assert_allclose(posterior.mean[0, :, t], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(posterior.variance[0, :, t], variance, rtol=1e-3)
        sd = np.sqrt(e_zz - e_z**2)
        assert z[:, t].mean() == pytest.approx(e_z, abs=4.5 * sd / np.sqrt(draws))
        # The sd of a sample sd is about sd / sqrt(2 D), more where the law is skewed.
        assert z[:, t].std() == pytest.approx(sd, rel=2 * 4.5 / np.sqrt(2 * draws))


def integrate_gain(x, noise, gain_sd_db, tempering):
    """Norm, E[z], E[z^2] and, by bin, E[Gx], E[|Gx|^2] and E[c] of one frame, by scipy."""
    s = make_spectrum()[:, 0]
    top = max(log_weight(z, x, s, noise, gain_sd_db, tempering) for z in np.linspace(-8, 8, 101))

    def integrand(z):
        weight = np.exp(log_weight(z, x, s, noise, gain_sd_db, tempering) - top)
        power = s * np.exp(DB * gain_sd_db * z)
        gain = power / (power + noise)
        moments = [[1.0, z, z * z], (gain * x).real, (gain * x).imag, np.abs(gain * x) ** 2,
                   gain * noise]  # fmt: skip
        return weight * np.concatenate(moments)

    total, _ = integrate.quad_vec(integrand, -8, 8, epsrel=1e-6, limit=400)
    norm, moments = total[0], total[1:] / total[0]
    real, imag, second, within = moments[2:].reshape(4, -1)
    return norm, moments[0], moments[1], real + 1j * imag, second, within


def log_weight(z, x, s, noise, gain_sd_db, tempering):
    power = s * np.exp(DB * gain_sd_db * z) + noise
    likelihood = (-np.log(np.pi * power) - np.abs(x) ** 2 / power).sum()
    return tempering * likelihood - 0.5 * z**2


@pytest.mark.parametrize("gain_sd_db", [6.0, 0.0], ids=["gain", "no gain"])
def test_an_unknown_level_adds_an_outer_integral(gain_sd_db):
    scene = reference_scene(
        False, noise_power=0.4, noise_sd_db=5.0, gain_sd_db=gain_sd_db, stft=Stft(64, 32)
    )
    simulated = simulate(scene, 128, recordings=2, seed=4)
    draws = 1000
    posterior = Exact(draws=draws, waveforms=False)(scene, simulated.mixture, seed=0)
    for r, values in enumerate(simulated.mixture.values.numpy()):
        mean, variance, level, level_sd = sum_over_grid(values, gain_sd_db)
        np.testing.assert_allclose(posterior.mean[r], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(posterior.variance[r], variance, rtol=1e-3)
        log_level = np.log(posterior.latents["noise.level"][0, :, r, 0, 0])
        assert log_level.mean() == pytest.approx(level, abs=4.5 * level_sd / np.sqrt(draws))
        assert log_level.std() == pytest.approx(level_sd, rel=9 / np.sqrt(2 * draws))


def sum_over_grid(values, gain_sd_db):
    """Mean and variance of speech, and of the log noise level, on one dense fixed grid."""
    log_b = np.log(0.4) + 5.0 * DB * np.linspace(-6, 6, 121)
    z = np.linspace(-6, 6, 101) if gain_sd_db else np.zeros(1)
    speech = make_spectrum() * np.exp(DB * gain_sd_db * z)[:, None, None]  # (z, freq, 1)
    prior_b = -0.5 * ((log_b - np.log(0.4)) / (5.0 * DB)) ** 2
    mass, rows = [], []
    for b in np.exp(log_b):
        log_p = log_likelihood(speech + b, values) - 0.5 * (z**2)[:, None]  # (z, time)
        top = log_p.max(axis=0)
        weight = np.exp(log_p - top)[:, None]  # (z, 1, time)
        gain = speech / (speech + b)
        norm = weight.sum(axis=0)
        rows.append([(weight * m).sum(axis=0) / norm for m in (gain, gain**2, gain * b)])
        mass.append((top + np.log(norm[0])).sum())
    log_w = np.array(mass) + prior_b
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    gain, squared, within = (np.tensordot(w, np.array(m), axes=1) for m in zip(*rows, strict=True))
    level = w @ log_b
    variance = within + (squared - gain**2) * np.abs(values) ** 2
    return gain * values, variance, level, np.sqrt(w @ log_b**2 - level**2)


@pytest.mark.parametrize(("known", "few", "many"), [(True, 33, 257), (False, 17, 33)])
def test_more_nodes_do_not_change_it(known, few, many):
    scene = reference_scene(known, gain_sd_db=10.0, stft=STFT)
    mixture = simulate(scene, 64, recordings=2, seed=5).mixture
    coarse, fine = (Exact(nodes=n, draws=1, waveforms=False)(scene, mixture) for n in (few, many))
    assert are_near(coarse, fine, 1e-4 if known else 1e-3)


def test_single_precision_is_near():
    scene = reference_scene(False, stft=STFT)
    mixture = simulate(scene, 64, seed=5).mixture
    single, double = (
        Exact(nodes=17, draws=1, dtype=dtype)(scene, mixture)
        for dtype in (torch.float32, torch.float64)
    )
    assert are_near(single, double, 0.01)


def test_a_padded_recording_is_what_it_is_alone():
    scene = reference_scene(False, stft=STFT)
    long, short = waves(2)[0][:160], waves(2)[1][:80]
    both = Exact(nodes=17, draws=2)(scene, [long, short], seed=0).select(1)
    alone = Exact(nodes=17, draws=2)(scene, short, seed=1)
    assert are_near(both, alone, 1e-3)


def test_a_known_level_is_the_limit_of_a_narrow_prior():
    known, narrow = (
        reference_scene(True, stft=STFT),
        reference_scene(False, noise_sd_db=0.01, stft=STFT),
    )
    mixture = simulate(known, 200, seed=6).mixture
    one, other = (Exact(draws=1, nodes=17)(scene, mixture) for scene in (known, narrow))
    assert are_near(one, other, 0.01)


def two_levels(frames):
    levels = [pyro.sample(f"level{i}", dist.LogNormal(-1.0, 1.0)) for i in range(2)]
    return ComplexNormal(0.0, levels[0] + levels[1])


def gain_of_noise(frames):
    with pyro.plate("time", frames.time, dim=-1):
        return ComplexNormal(0.0, pyro.sample("noise.gain", dist.LogNormal(-1.0, 1.0)))


@pytest.mark.parametrize("noise", [stationary, NMF(2), two_levels, gain_of_noise])
def test_other_scenes_have_no_exact_posterior(noise):
    with pytest.raises(ValueError, match=r"at most one latent per recording .* Use SVI"):
        Exact()(Scene(GaussianSpeech(stft=STFT), noise), waves(1), seed=0)


def test_a_latent_of_noise_for_each_frame_is_fine():
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), gain_of_noise)
    posterior = Exact(draws=2)(scene, waves(1), seed=0)
    assert np.isfinite(posterior.mean).all()
    assert posterior.latents["noise.gain"].shape == (1, 2, 1, 1, posterior.mean.shape[-1])


# --- recovery ------------------------------------------------------------------------------------

ROUTINES = {
    "svi": lambda w: SVI(
        steps=400,
        learning_rate=0.02,
        tolerance=0,
        draws=DRAWS,
        moment_draws=None,
        waveforms=False,
        tempering=w,
    ),
    "em": lambda w: EM(iterations=150, step_size=0.05, waveforms=False, tempering=w),
    "em-langevin": lambda w: EM(
        e_step="langevin", iterations=300, step_size=0.05, draws=DRAWS, waveforms=False, tempering=w
    ),
}
# Noise known or not, power of the likelihood. Two recordings in one batch.
SETTINGS = [(True, 1.0), (False, 1.0), (False, 0.25)]
settings = pytest.mark.parametrize(
    ("known", "tempering"),
    [pytest.param(*s, marks=[] if s[0] else pytest.mark.slow) for s in SETTINGS],
)


@lru_cache
def simulate_reference(known):
    scene = reference_scene(known, stft=STFT)
    return scene, simulate(scene, 320, recordings=2, seed=1).mixture


@lru_cache
def infer_exactly(known, tempering):
    nodes = 33 if known else 17
    routine = Exact(nodes=nodes, draws=DRAWS, waveforms=False, tempering=tempering)
    return routine(*simulate_reference(known), seed=0)


@lru_cache
def infer(name, known, tempering):
    return ROUTINES[name](tempering)(*simulate_reference(known), seed=0)


def speech_gap(name, known, tempering):
    """Distance of the posterior means of speech, sd, ``(recording, freq, time)``."""
    truth = infer_exactly(known, tempering)
    return np.abs(infer(name, known, tempering).mean - truth.mean) / truth.sd


def latent_gaps(name, known, tempering):
    """For each latent: distance of the means in sd, and ratio of the sd."""
    truth, gaps = infer_exactly(known, tempering).latents, {}
    for site, values in infer(name, known, tempering).latents.items():
        scale = np.log if site == "noise.level" else np.asarray
        ours, its = scale(values[0]), scale(truth[site][0])
        gaps[site] = np.abs(ours.mean(0) - its.mean(0)) / its.std(0), ours.std(0) / its.std(0)
    return gaps


def rms(values):
    return float(np.sqrt(np.mean(values**2)))


@settings
def test_svi_recovers_speech(known, tempering):
    gap = speech_gap("svi", known, tempering)
    assert rms(gap) < 0.05
    assert gap.max() < 0.4
    ratio = infer("svi", known, tempering).sd / infer_exactly(known, tempering).sd
    assert 0.95 < np.median(ratio) < 1.05
    low, high = np.quantile(ratio, [0.02, 0.98])
    assert 0.85 < low < high < 1.15


@settings
def test_svi_recovers_latents(known, tempering):
    gaps = latent_gaps("svi", known, tempering)
    assert set(gaps) == ({"speech.gain"} if known else {"speech.gain", "noise.level"})
    for gap, _ in gaps.values():
        assert gap.max() < 0.4 + MONTE_CARLO
    gap, ratio = gaps["speech.gain"]
    assert rms(gap) < 0.25
    # A ratio of two sd of 400 draws is known to 0.05, the median of forty of them to 0.01.
    assert 0.94 < np.median(ratio) < 1.06
    if not known:  # one number a recording, related to all gains
        assert 0.7 < gaps["noise.level"][1].min() <= gaps["noise.level"][1].max() < 1.3


def test_the_bound_of_svi_is_just_below_the_evidence():
    _, mixture = simulate_reference(True)
    z = np.linspace(-7, 7, 401)
    power = make_spectrum() * np.exp(DB * 6.0 * z)[:, None, None, None] + 0.3
    log_p = log_likelihood(power, mixture.values.numpy()) - 0.5 * z[:, None, None] ** 2
    step = (z[1] - z[0]) / np.sqrt(2 * np.pi)
    evidence = (np.logaddexp.reduce(log_p, axis=0) + np.log(step)).sum(axis=-1)
    elbo = infer("svi", True, 1.0).trace["elbo"][-100:]
    gap = evidence - elbo.mean(0)  # Kullback-Leibler divergence of the guide, nats
    error = 4 * elbo.std(0) / 10
    frames = mixture.frames.time
    assert (gap > -error).all()
    assert (gap < 0.1 * frames + error).all()
    assert error.max() < 0.2 * frames


@settings
def test_em_is_near_the_mode(known, tempering):
    # The mode of a gain lies off its mean by about a quarter sd where the posterior is skewed,
    # which is where a frame is mostly noise; speech is then small and hardly moves.
    gap = speech_gap("em", known, tempering)
    assert rms(gap) < 0.1
    assert gap.max() < 0.4
    gaps = latent_gaps("em", known, tempering)
    assert rms(gaps["speech.gain"][0]) < 0.2
    for distance, ratio in gaps.values():
        assert distance.max() < 0.5 + MONTE_CARLO
        assert (ratio == 0).all()  # a point
    # What is left is the variance of the Wiener filter: never more, up to the shift of the point.
    ratio = infer("em", known, tempering).sd / infer_exactly(known, tempering).sd
    assert 0.75 < np.median(ratio) < 1.0
    assert ratio.max() < 1.1


@settings
def test_langevin_is_near(known, tempering):
    # 150 kept moves of a chain that takes about ten to forget itself: 15 draws of their own, an
    # error of 0.26 sd for each gain and more where the preconditioner is slow.
    gap = speech_gap("em-langevin", known, tempering)
    assert rms(gap) < 0.2
    ratio = infer("em-langevin", known, tempering).sd / infer_exactly(known, tempering).sd
    assert 0.9 < np.median(ratio) < 1.1
    gaps = latent_gaps("em-langevin", known, tempering)
    distance, ratio = gaps["speech.gain"]
    assert rms(distance) < 0.8
    # So few draws of their own understate a spread, here by a tenth.
    assert 0.82 < np.median(ratio) < 1.1
    if not known:  # the noise only follows the draws of speech: its own uncertainty is missing
        distance, ratio = gaps["noise.level"]
        assert distance.max() < 0.6
        assert ratio.max() < 0.6


def test_the_distances_can_tell():
    # The exact posterior at one power of the likelihood fails the checks at the other.
    truth, other = infer_exactly(False, 1.0), infer_exactly(False, 0.25)
    assert rms(np.abs(truth.mean - other.mean) / truth.sd) > 0.08
    ratio = other.latents["speech.gain"].std(1) / truth.latents["speech.gain"].std(1)
    assert np.median(ratio) > 1.5


@pytest.mark.parametrize("name", ROUTINES)
def test_a_tempered_routine_says_so(name):
    assert infer(name, False, 0.25).kind.endswith(", tempered 0.25")
    assert "tempered" not in infer(name, True, 1.0).kind
    assert infer_exactly(False, 0.25).kind == "exact, tempered 0.25"


# --- calibration, in the model's own world --------------------------------------------------------


def ranks_of(truth, draws):
    """Number of draws below the truth, uniform on 0..D if the draws are from the posterior."""
    return (draws < truth).sum(axis=0)


def check_uniform(rank, draws, bins=10):
    """Chi-squared, at a false-failure rate of 1e-4."""
    counts = np.bincount(rank.ravel() * bins // (draws + 1), minlength=bins)
    assert stats.chisquare(counts).pvalue > 1e-4, counts


def check_coverage(rank, draws, probability, independent):
    """Share of the truths inside the central interval, within 4 binomial sd."""
    tail = (1 - probability) / 2 * (draws + 1)
    inside = ((rank >= tail) & (rank <= draws - tail)).mean()
    allowed = 4 * np.sqrt(probability * (1 - probability) / independent)
    assert inside == pytest.approx(probability, abs=allowed)


def draw_speech(scene, mixture, posterior, seed=0):
    """Draws of each coefficient by its own law, ``(draw, recording, freq, time)``."""
    rows = []
    torch.manual_seed(seed)
    for i in range(posterior.speech.shape[1] or len(next(iter(posterior.latents.values()))[0])):
        values = {k: torch.from_numpy(v[0, i]) for k, v in posterior.latents.items()}
        laws = scene.laws_given(values, mixture)
        rows.append(laws.speech.condition(laws.noise, mixture.values).sample())
    return torch.stack(rows).numpy()


def calibrate(known, recordings, draws=99):
    scene = reference_scene(known, stft=STFT)
    simulated = simulate(scene, 320, recordings=recordings, seed=11)
    nodes = 65 if known else 25
    routine = Exact(nodes=nodes, draws=draws, waveforms=False)
    return scene, simulated, routine(scene, simulated.mixture, seed=100)


def test_exact_intervals_cover():
    # Given the noise, frames are independent: 30 recordings x 21 frames.
    draws = 99
    scene, simulated, posterior = calibrate(True, recordings=30, draws=draws)
    gains = ranks_of(simulated.latents["speech.gain"].numpy(), posterior.latents["speech.gain"][0])
    check_uniform(gains, draws)
    for probability in (0.5, 0.9):
        check_coverage(gains, draws, probability, gains.size)
    speech = draw_speech(scene, simulated.mixture, posterior)
    for part in (np.real, np.imag):
        rank = ranks_of(part(simulated.speech.numpy()), part(speech))
        one_bin_a_frame = rank[:, np.arange(rank.shape[-1]) % 33, np.arange(rank.shape[-1])]
        check_uniform(one_bin_a_frame, draws)
        check_coverage(rank, draws, 0.9, one_bin_a_frame.size)


def test_moments_are_those_of_the_truth():
    # E|s - mean|^2 = variance. The ratio by bin has a sd of about 1, more where the gain is open.
    _, simulated, posterior = calibrate(True, recordings=30)
    ratio = np.abs(simulated.speech.numpy() - posterior.mean) ** 2 / posterior.variance
    frames = ratio.mean(axis=1)
    assert frames.mean() == pytest.approx(1.0, abs=4 * frames.std() / np.sqrt(frames.size))
    assert frames.std() / np.sqrt(frames.size) < 0.02  # so that the line above can fail


def test_the_check_of_coverage_can_fail():
    draws = 99
    _, simulated, posterior = calibrate(True, recordings=30, draws=draws)
    values = posterior.latents["speech.gain"][0]
    narrow = values.mean(0) + 0.7 * (values - values.mean(0))
    rank = ranks_of(simulated.latents["speech.gain"].numpy(), narrow)
    with pytest.raises(AssertionError):
        check_uniform(rank, draws)
    with pytest.raises(AssertionError):
        check_coverage(rank, draws, 0.9, rank.size)


@pytest.mark.slow
def test_exact_intervals_cover_with_an_unknown_level():
    draws = 99
    _, simulated, posterior = calibrate(False, recordings=100, draws=draws)
    for name, values in posterior.latents.items():
        rank = ranks_of(simulated.latents[name].numpy(), values[0])
        check_uniform(rank[:, :, :1], draws)  # one a recording: those of a recording are related
        check_coverage(rank, draws, 0.9, 100)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_svi_intervals_cover(known):
    # Mean field: the noise level and the gains are related, so a little less than stated.
    draws = 199
    scene = reference_scene(known, stft=STFT)
    simulated = simulate(scene, 320, recordings=200, seed=12)
    routine = SVI(
        steps=1000, learning_rate=0.02, tolerance=0, draws=draws, waveforms=False, tempering=1.0
    )
    posterior = routine(scene, simulated.mixture, seed=0)
    for name, values in posterior.latents.items():
        rank = ranks_of(simulated.latents[name].numpy(), values[0])
        inside = ((rank >= 10) & (rank <= draws - 10)).mean()
        assert 0.8 < inside < 0.96, name
