"""The catalogue of noise models: their statistics are those of their docstrings."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from avse_ppl import NMF, SVI, ComplexNormal, Frames, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models import (
    AlphaStable,
    AR1Gain,
    Clicks,
    Hum,
    NoiseVae,
    StudentT,
    Wind,
    clicks,
    hum,
    wind,
)
from avse_ppl.models.handlers import reuse_plates
from avse_ppl.models.networks import TcvaeNetwork, VaeNetwork
from avse_ppl.models.noise.hum import line_shape
from avse_ppl.models.noise.modulated import positive_stable, sample_log_gain
from avse_ppl.signal.stft import Spectrogram
from tests.helpers import STFT

DB = math.log(10) / 10
FRAMES = Frames(freq=33, time=9, hop=16, n_fft=64)


def unit(frames):
    """Inner noise of power 2."""
    return ComplexNormal(0.0, frames.number(2.0))


def shifted(frames):
    return ComplexNormal(frames.number(3.0), frames.number(2.0))


def small_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8).requires_grad_(False)


NETWORK = small_network()
MODELS = {
    "stationary": stationary,
    "nmf": NMF(2),
    "ar1": AR1Gain(),
    "ar1, memory learned": AR1Gain(noise=NMF(1), gain_sd_db=3.0, correlation_s=None),
    "student-t": StudentT(),
    "student-t, df known": StudentT(4.0),
    "alpha-stable": AlphaStable(),
    "alpha-stable, alpha known": AlphaStable(1.8, noise=AR1Gain()),
    "hum": Hum(600.0, harmonics=5),
    "clicks": clicks,
    "wind": wind,
    "learned": NoiseVae(NETWORK, stft=STFT),
    "sum": NMF(2) + hum(600.0) + clicks + stationary,
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def trace_of(model, frames=FRAMES, recordings=2, values=None):
    """Values of the latents, their laws, and the law of the noise."""

    def program():
        with pyro.plate("recording", recordings, dim=-3):
            return model(frames)

    program = reuse_plates()(program)
    if values is not None:
        program = poutine.condition(program, data=values)
    trace = poutine.trace(program).get_trace()
    sites = {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"
    }
    return {n: s["value"] for n, s in sites.items()}, sites, trace.nodes["_RETURN"]["value"]


def share(condition):
    """Share of all entries and five binomial standard deviations of it."""
    p = float(condition.double().mean())
    return p, 5 * math.sqrt(max(p * (1 - p), 1e-9) / condition.numel())


# What all of them promise


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_law_is_positive_finite_and_in_the_dtype_of_the_frames(model, dtype):
    frames = Frames(33, 9, hop=16, n_fft=64, dtype=dtype)
    if hasattr(model, "to"):
        model = model.to(frames.device, dtype)
    values, _, law = trace_of(model, frames)
    assert law.power.dtype == dtype
    assert torch.broadcast_shapes(law.batch_shape, (2, 33, 9)) == (2, 33, 9)
    assert bool((law.power > 0).all()) and bool(law.power.isfinite().all())
    assert all(value.dtype == dtype for value in values.values())
    assert all(name.startswith("noise.") for name in values)


@every_model
def test_recordings_are_apart(model):
    values, _, law = trace_of(model)
    one = {name: value[1:] for name, value in values.items()}
    _, _, alone = trace_of(model, recordings=1, values=one)
    torch.testing.assert_close(law.power[1:], alone.power, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [  # slow, because JAX compiles each operation that it meets for the first time
        pytest.param(model, id=name, marks=[] if name == "clicks" else pytest.mark.slow)
        for name, model in MODELS.items()
    ],
)
def test_the_same_text_is_a_numpyro_program(model):
    jax = pytest.importorskip("jax")
    handlers = pytest.importorskip("numpyro").handlers
    from avse_ppl.distributions.backend import numpyro_backend

    values, sites, law = trace_of(model)
    found, data = {}, {n: jax.numpy.asarray(v.numpy()) for n, v in values.items()}
    with numpyro_backend():
        import numpyro

        def program():
            frames = Frames(33, 9, hop=16, n_fft=64, device=None, dtype=jax.numpy.float32)
            with numpyro.plate("recording", 2, dim=-3):
                found["law"] = model(frames)

        trace = handlers.trace(
            handlers.substitute(handlers.seed(program, 0), data=data)
        ).get_trace()
        twins = {n: np.asarray(s["fn"].log_prob(s["value"])) for n, s in trace.items()
                 if s["type"] == "sample"}  # fmt: skip
    assert set(twins) == set(values)
    np.testing.assert_allclose(np.asarray(found["law"].power), law.power, rtol=2e-3)
    for name, site in sites.items():
        ours = site["fn"].log_prob(site["value"])
        np.testing.assert_allclose(twins[name], ours, rtol=1e-3, atol=1e-3, err_msg=name)


@every_model
def test_gradients_reach_every_latent(model):
    density = LogDensity(Scene(GaussianSpeech(stft=STFT), model), mixture())
    point = {s.name: s.start.clone().requires_grad_() for s in density.sites if s.of_noise}
    point |= {s.name: s.start for s in density.sites if not s.of_noise}
    noise = [point[name] for name in density.names(of_noise=True)]
    for gradient in torch.autograd.grad(density(point).sum(), noise):
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) > 1e-6


def mixture(n_samples=400, seed=0) -> Spectrogram:
    return STFT.analyse(np.random.default_rng(seed).normal(size=(2, n_samples)).astype("float32"))


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"nmf", "hum", "wind"}))
def test_a_start_is_better_than_the_median_of_the_prior(name):
    # Loud white noise with a few bursts; speech is what the prior says.
    waves = np.random.default_rng(3).normal(size=(2, 1600)).astype("float32")
    waves[:, 700:716] *= 30
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, spectrum=torch.full((33,), 1e-3), stft=STFT),
                  MODELS[name])  # fmt: skip
    spectrogram = STFT.analyse(waves)
    density = LogDensity(scene, spectrogram)
    power = spectrogram.power
    generator = torch.Generator().manual_seed(0)
    start = {site.name: site.start for site in density.sites}
    values = MODELS[name].initial(power, torch.full_like(power, 1e-3), generator)
    assert values and set(values) <= set(start)
    better = {**start, **density.unconstrain(values)}
    assert all(better[name].shape == value.shape for name, value in start.items())
    if name != "learned":  # its encoder has not been trained
        assert bool((density(better) > density(start)).all())


def test_a_model_with_a_start_and_no_updates_runs_under_svi():
    scene = Scene(GaussianSpeech(stft=STFT), NMF(1) + clicks)
    posterior = SVI(steps=3, draws=2)(scene, mixture(), seed=0)
    assert "noise.1.clicks" in posterior.latents


# AR(1) gain


def test_the_gain_is_an_ar1_sequence():
    frames = Frames(freq=5, time=8, hop=256, dtype=torch.float64)
    rho = math.exp(-256 / 16000 / 0.1)
    innovations = torch.randn(1, 1, 8, dtype=torch.float64)
    values = {"noise.innovations": innovations}
    with poutine.condition(data=values):
        found = sample_log_gain(frames, "noise", 7.0, 6.0, 0.1)[0, 0] / (7.0 * DB)
    g = innovations[0, 0, 0]
    for t in range(8):
        if t:
            g = rho * g + math.sqrt(1 - rho**2) * innovations[0, 0, t]
        assert float(found[t]) == pytest.approx(float(g), rel=1e-9)


@pytest.mark.parametrize("learned", [False, True])
def test_the_log_gain_is_stationary_with_exponential_autocorrelation(learned):
    # 20000 draws: a covariance has a standard deviation of at most 0.01 of the variance.
    frames = Frames(freq=1, time=6, hop=256, dtype=torch.float64)
    values = {"noise.correlation_s": torch.full((1, 1, 1), 0.05, dtype=torch.float64)}
    model = AR1Gain(noise=unit, gain_sd_db=5.0, correlation_s=None if learned else 0.05)
    _, _, law = trace_of(model, frames, 20000, values if learned else None)
    logs = (law.power[:, 0] / 2.0).log() / (5.0 * DB)
    lag = torch.arange(6).double()
    expected = torch.exp(-(lag[:, None] - lag).abs() * 256 / 16000 / 0.05)
    assert float((logs.T.cov() - expected).abs().max()) < 0.05
    assert float(logs.mean(0).abs().max()) < 0.04


# Heavy tails


@pytest.mark.parametrize("df", [1.0, 3.0])
def test_student_t_has_its_tails(df):
    _, _, law = trace_of(StudentT(df, unit), Frames(100, 100), 5)
    energy = law.sample().abs().square()
    for q in (0.1, 1.0, 10.0, 100.0):
        p, allowed = share(energy > 2.0 * q)
        assert p == pytest.approx((1 + 2 * q / df) ** (-df / 2), abs=allowed), q


def test_degrees_of_freedom_are_learned_from_the_tail():
    values = {"noise.tail": torch.tensor([[[math.log(0.5)]]])}  # df = 1 + 4 / 2
    _, sites, _ = trace_of(StudentT(noise=unit), recordings=1, values=values)
    texture = sites["noise.texture"]["fn"]
    assert float(texture.base_dist.concentration.flatten()[0]) == pytest.approx(1.5)
    assert float(texture.base_dist.rate.flatten()[0]) == pytest.approx(1.5)


@pytest.mark.parametrize("alpha", [0.8, 1.5, 1.9])
def test_alpha_stable_has_its_characteristic_function(alpha):
    _, _, law = trace_of(AlphaStable(alpha, unit), Frames(100, 100), 20)
    b = law.sample().flatten()
    for omega in (0.3, 1.0, 3.0):
        wave = torch.cos(omega * b.real), torch.cos(omega * b.imag)
        for part in wave:  # cosines have a standard deviation of at most 1
            expected = math.exp(-((math.sqrt(2.0) * omega / 2) ** alpha))
            assert float(part.mean()) == pytest.approx(expected, abs=5 / math.sqrt(len(part)))


@pytest.mark.parametrize("alpha", [1.0, 1.6])
def test_alpha_stable_has_its_tail_index(alpha):
    _, _, law = trace_of(AlphaStable(alpha, unit), Frames(100, 100), 40)
    b = law.sample().abs().flatten()
    near, far = (float((b > q).double().mean()) for q in (30.0, 120.0))
    # 400000 draws: some hundred beyond the far one.
    slope = math.log(near / far) / math.log(4)
    assert slope == pytest.approx(alpha, abs=5 / math.sqrt(far * len(b)) / math.log(4) + 0.02)


def test_alpha_is_learned_between_1_and_2():
    tails = torch.tensor([-30.0, 0.0, 30.0])
    alphas = []
    for tail in tails:
        values = {"noise.tail": tail.reshape(1, 1, 1)}
        with poutine.condition(data=values):
            alphas.append(float(AlphaStable().sample_alpha(FRAMES)))
        _, _, law = trace_of(AlphaStable(noise=unit), recordings=1, values=values)
        assert bool(law.power.isfinite().all())
    assert alphas == pytest.approx([1.0, 1.495, 1.99])
    # Near 2 the textures are all near 1: noise is Gaussian again.
    assert float((law.power / 2.0).log().abs().median()) < 0.05


def test_positive_stable_numbers_stay_finite_at_the_ends():
    ends = torch.tensor([1e-30, 1e-7, 0.5, 1 - 6e-8])
    energy = torch.tensor([1e-30, 1.0, 80.0])[:, None]
    for index in (0.05, 0.5, 0.995):
        values = positive_stable(torch.tensor(index), ends, energy)
        assert bool(values.isfinite().all()) and bool((values > 0).all())


def test_heavy_tails_keep_the_mean_of_the_inner_noise():
    for model in (StudentT(4.0, shifted), AlphaStable(1.5, shifted), AR1Gain(noise=shifted)):
        _, _, law = trace_of(model)
        assert float(law.mean) == 3.0
        assert not law.zero_mean


# Hum


def test_a_line_has_the_shape_of_the_window():
    stft = Stft()
    frames = stft.frames(16000)
    for freq_hz in (200.0, 333.3, 1000.0):
        tone = torch.cos(2 * math.pi * freq_hz / 16000 * torch.arange(16000) + 1.0)
        power = stft.forward(tone)[:, 30].abs().square()
        bins = (frames.freq_hz[:, 0] - freq_hz) / (16000 / 1024)
        # At the peak: the sum of the window, over 2 for the half of a cosine, squared.
        peak = (torch.sin(math.pi * torch.arange(1024) / 1024).sum() / 2) ** 2
        near = bins.abs() < 3
        torch.testing.assert_close(power[near] / peak, line_shape(bins[near]), rtol=0.05, atol=2e-4)


def test_hum_is_energy_at_the_harmonics():
    values = {
        "noise.lines": torch.tensor([1.0, 5.0, 0.2])[None, :, None],
        "noise.drift": torch.full((1, 1, 1), 2.0),
    }
    frames = Frames(freq=513, time=3)
    model = Hum(freq_hz=500.0, harmonics=3, drift_hz=0.5)
    _, _, law = trace_of(model, frames, 1, values)
    power = law.power[0, :, 0]
    at = (frames.freq_hz[:, 0] / (16000 / 1024)).round()
    for k, level in enumerate((1.0, 5.0, 0.2), 1):
        off = k * 501.0 / (16000 / 1024) - at  # drifted by 1 Hz
        assert float(power[off.abs() < 0.5]) == pytest.approx(
            level * float(line_shape(off[off.abs() < 0.5])), rel=0.01
        )
    whole = float(line_shape(torch.arange(-9.0, 9.0)).sum())  # of a line, over its bins
    assert float(power.sum()) == pytest.approx(6.2 * whole, rel=0.02)
    assert float(power[(at > 120)].max()) < 1e-4


def test_harmonics_above_half_the_sample_rate_are_left_out():
    values, _, _ = trace_of(Hum(1500.0, harmonics=20))
    assert values["noise.lines"].shape == (2, 5, 1)
    values, _, _ = trace_of(Hum(1600.0, harmonics=20))  # the fifth would be at 8000 Hz
    assert values["noise.lines"].shape == (2, 4, 1)
    with pytest.raises(ValueError, match="hum at 8000 Hz lies above half the sample rate of 16000"):
        Hum(8000.0)(FRAMES)


def test_hum_wants_its_frequency():
    assert hum(60, harmonics=3) == Hum(60, harmonics=3)
    with pytest.raises(TypeError, match=r"hum is not a noise model, hum\(50\) is"):
        hum(FRAMES)


# Clicks and wind


def test_clicks_are_rare_and_heavy_tailed():
    colour = torch.full((1, 1, 1), 0.01)
    _, _, law = trace_of(Clicks(), Frames(1, 200000), 1, {"noise.colour": colour})
    for q in (1e-4, 0.01, 1.0, 100.0):
        p, allowed = share(law.power > q)
        expected = 1 - 2 / math.pi * math.atan(math.sqrt(q / 0.01))
        assert p == pytest.approx(expected, abs=allowed + 1e-4), q


def test_the_rate_of_clicks_is_that_of_frames_louder_than_the_recording():
    _, sites, _ = trace_of(Clicks(rate=0.1), Frames(1, 3))
    median = float(sites["noise.colour"]["fn"].base_dist.loc.flatten()[0])
    assert 1 - 2 / math.pi * math.atan(math.exp(-median / 2)) == pytest.approx(0.1)


def test_clicks_are_broadband():
    _, _, law = trace_of(Clicks(), Frames(6, 7), 1)
    assert int(torch.linalg.matrix_rank(law.power[0], rtol=1e-4)) == 1


def test_wind_falls_off_and_comes_in_gusts():
    number = lambda x: torch.full((1, 1, 1), x)  # noqa: E731
    values = {
        "noise.level": number(4.0), "noise.slope": number(2.5), "noise.corner_hz": number(60.0),
        "noise.gain_sd_db": number(6.0),
    }  # fmt: skip
    frames = Frames(freq=513, time=40)
    _, _, law = trace_of(Wind(correlation_s=0.1), frames, 1, values)
    power = law.power[0]
    octave = power[[64, 128]].log2()
    torch.testing.assert_close(octave[0] - octave[1], torch.full((40,), 2.5), atol=0.03, rtol=0)
    logs = power[0].log() - math.log(4.0)  # at 0 Hz: the gusts alone
    torch.testing.assert_close(power[3].log() - logs, power[3, :1].log().expand(40) - logs[0],
                               atol=1e-4, rtol=1e-4)  # fmt: skip
    assert 2.0 < float(logs.std() / DB) < 12.0


def test_wind_starts_at_the_floor_of_the_lowest_bins():
    g = torch.Generator().manual_seed(0)
    power = torch.empty(1, 33, 4000).exponential_(generator=g)
    power[:, 1:5] *= 100.0
    values = wind.initial(power, power, g)
    assert set(values) == {"noise.level"}
    # The geometric mean of exponential numbers is exp(-0.5772) of their mean.
    assert float(values["noise.level"]) == pytest.approx(100 * math.exp(-0.5772), rel=0.1)


# The learned prior


def test_the_learned_prior_is_its_decoder_with_a_gain():
    model = NoiseVae(NETWORK, gain_sd_db=6.0, equaliser_sd_db=4.0, stft=STFT)
    values, sites, law = trace_of(model)
    knots = np.linspace(0.0, math.log2(33), 9)
    octaves = np.log2(np.arange(1, 34))
    for r in range(2):
        knot = values["noise.equaliser"][r, :, 0].numpy()
        gain_db = 4.0 * np.interp(octaves, knots, knot) + 6.0 * float(values["noise.level"][r])
        expected = NETWORK.decode(values["noise.z"][r]) + DB * torch.from_numpy(gain_db)[:, None]
        torch.testing.assert_close(
            law.power[r].log().double(), expected.double(), rtol=1e-4, atol=1e-4
        )
    assert all(float(s["fn"].log_prob(torch.tensor(0.0)).flatten()[0]) == pytest.approx(
        -0.5 * math.log(2 * math.pi)) for s in sites.values())  # fmt: skip
    assert "noise.equaliser" not in trace_of(NoiseVae(NETWORK, equaliser_sd_db=0.0, stft=STFT))[0]


def test_the_learned_prior_starts_at_its_encoder():
    power = mixture().power
    values = NoiseVae(NETWORK, stft=STFT).initial(power, power, torch.Generator())
    assert set(values) == {"noise.z"}
    torch.testing.assert_close(values["noise.z"], NETWORK.encode(power)[0])


def test_the_learned_prior_moves():
    model = NoiseVae(NETWORK, stft=STFT)
    assert model.to(torch.device("cpu"), torch.float32) is model
    other = (model + stationary).to(torch.device("cpu"), torch.float64)
    assert other.parts[0].network.decoder_logpower.weight.dtype == torch.float64
    assert NETWORK.decoder_logpower.weight.dtype == torch.float32
    for outer in (AR1Gain(noise=model), StudentT(3.0, model), AlphaStable(1.5, model)):
        moved = outer.to(torch.device("cpu"), torch.float64)
        assert moved.noise.network.decoder_logpower.weight.dtype == torch.float64
        assert (type(moved), moved.site) == (type(outer), "noise")


def test_the_learned_prior_refuses_another_front_end():
    model = NoiseVae(VaeNetwork(33, 3, hidden=(8,)), stft=STFT, name="mine")
    with pytest.raises(ValueError) as caught:
        model(Frames(freq=33, time=9, hop=32, n_fft=64))
    assert str(caught.value) == (
        "mine was trained on frames of (sample rate, n_fft, hop) = (16000, 64, 16), found "
        "(16000, 64, 32); use a speech prior of that front end, or train another noise prior"
    )


# What is refused


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AR1Gain(gain_sd_db=0.0), "gain_sd_db must be a finite number above 0, not 0.0"),
        (lambda: AR1Gain(correlation_s=-1.0), "correlation_s must be a finite number above 0"),
        (lambda: Wind(correlation_s=0.0), "correlation_s must be a finite number above 0"),
        (lambda: Wind(gain_sd_db=math.inf), "gain_sd_db must be a finite number above 0"),
        (lambda: StudentT(0.0), "df must be a finite number above 0, not 0.0"),
        (lambda: AlphaStable(2.0), "alpha must be above 0 and below 2, not 2.0"),
        (lambda: AlphaStable(0.0), "alpha must be above 0 and below 2, not 0.0"),
        (lambda: Clicks(0.0), "rate must be a share of frames between 0 and 1, not 0.0"),
        (lambda: Clicks(1.0), "rate must be a share of frames between 0 and 1, not 1.0"),
        (lambda: Hum(0.0), "freq_hz must be a finite number above 0"),
        (lambda: Hum(50.0, harmonics=0), "harmonics must be a whole number of at least 1"),
        (lambda: Hum(50.0, drift_hz=0.0), "drift_hz must be a finite number above 0"),
    ],
)
def test_numbers_out_of_range(make, said):
    with pytest.raises(ValueError, match=said):
        make()
