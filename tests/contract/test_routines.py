"""What every routine promises, with every noise model and every prior.

All combinations run once, most of them in the slow tests. The fast ones hold a third of the pairs
of a routine and a noise model, each routine another third, the priors in turn; what takes several
runs of a routine is done with all pairs in the slow ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import (
    EM,
    HMC,
    NMF,
    NUTS,
    SVI,
    ComplexNormal,
    Exact,
    GaussianSpeech,
    GuidedDiffusion,
    LatentSpeech,
    Posterior,
    Scene,
    ScoreSpeech,
    Stft,
    stationary,
)
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models import AlphaStable, AR1Gain, Clicks, Hum, NoiseVae, StudentT, Wind
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from tests.helpers import STFT, arrays_of, known_noise, waves

N = 320
TIME = STFT.frame_count(N)
DRAWS = 3


# --- the cast ------------------------------------------------------------------------------------


def heavy_tailed(frames):
    """A user's noise model, as in the documentation: plain numbers, two plates."""
    floor = pyro.sample("floor", dist.LogNormal(-1.0, 1.0))
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        texture = pyro.sample("texture", dist.InverseGamma(2.0, 1.0))
    return ComplexNormal(0.0, floor * texture)


def hierarchy(frames):
    """A user's noise model in which the prior of one latent depends on another."""
    middle = pyro.sample("middle", dist.Normal(-1.0, 1.0))
    with pyro.plate("freq", frames.freq, dim=-2):
        power = pyro.sample("power", dist.LogNormal(middle, 0.5))
    return ComplexNormal(0.0, power)


def unknown_level(frames):
    return ComplexNormal(0.0, pyro.sample("level", dist.LogNormal(-1.0, 1.0)))


def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            VaeNetwork(33, 3, hidden=(8,)),
            RvaeNetwork(33, 3, hidden=6),
            TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8),
            denoiser(),
        )


def denoiser():
    network = ScoreNetwork(33, bins=8, hidden=8, blocks=2, wide=8, wide_blocks=1)
    torch.nn.init.normal_(network.leave.weight, std=0.05)  # so that its answers are no closed form
    return network


VAE, RVAE, TCVAE, DENOISER = networks()
PRIORS = {
    "gaussian": GaussianSpeech(stft=STFT),
    "white": GaussianSpeech(gain_sd_db=0.0, stft=STFT),
    "vae": LatentSpeech(VAE, stft=STFT, name="vae"),
    "rvae": LatentSpeech(RVAE, stft=STFT, name="rvae"),
    "tcvae": LatentSpeech(TCVAE, stft=STFT, name="tcvae"),
}
SCORES = {"score": ScoreSpeech(DENOISER, stft=STFT)}
NOISES = {
    "stationary": stationary, "nmf": NMF(2), "heavy-tailed": heavy_tailed,
    "hierarchy": hierarchy, "level": unknown_level, "known": known_noise,
    "ar1": AR1Gain(), "student-t": StudentT(), "alpha-stable": AlphaStable(),
    "hum": stationary + Hum(1000.0, harmonics=3), "clicks": stationary + Clicks(),
    "wind": stationary + Wind(), "learned": NoiseVae(VAE, stft=STFT),
}  # fmt: skip
ONE, GRID, SPECTRUM = (1, 1), (33, TIME), {"noise.power": (33, 1)}
SHAPES = {
    "gaussian": {"speech.gain": (1, TIME)},
    "white": {},
    "vae": {"speech.z": (3, TIME), "speech.level": (1, 1)},
    "rvae": {"speech.z": (3, TIME), "speech.level": (1, 1)},
    "tcvae": {"speech.z": (3, TIME), "speech.level": (1, 1)},
    "score": {},
    "stationary": {"noise.power": (33, 1)},
    "nmf": {"noise.spectra": (33, 2), "noise.activations": (2, TIME)},
    "heavy-tailed": {"floor": (1, 1), "texture": (33, TIME)},
    "hierarchy": {"middle": (1, 1), "power": (33, 1)},
    "level": {"level": (1, 1)},
    "known": {},
    "ar1": {**SPECTRUM, "noise.gain_sd_db": ONE, "noise.innovations": (1, TIME)},
    "student-t": {**SPECTRUM, "noise.tail": ONE, "noise.texture": GRID},
    "alpha-stable": {**SPECTRUM, "noise.tail": ONE, "noise.angle": GRID, "noise.energy": GRID},
    "hum": {**SPECTRUM, "noise.1.drift": ONE, "noise.1.lines": (3, 1)},
    "clicks": {**SPECTRUM, "noise.1.colour": (33, 1), "noise.1.clicks": (1, TIME)},
    "wind": {
        **SPECTRUM, "noise.1.level": ONE, "noise.1.slope": ONE, "noise.1.corner_hz": ONE,
        "noise.1.gain_sd_db": ONE, "noise.1.innovations": (1, TIME),
    },
    "learned": {"noise.level": ONE, "noise.equaliser": (9, 1), "noise.z": (3, TIME)},
}  # fmt: skip
STEPS = 6  # half of them are kept by Langevin: as many as there are draws
SVI_SHORT = {"steps": STEPS, "tolerance": 0, "draws": DRAWS, "k_hat_draws": 25, "tempering": 1.0}
EM_SHORT = {"rounds": STEPS, "draws": DRAWS, "tempering": 1.0}
CHAIN_SHORT = {"draws": DRAWS, "warmup": 2, "chains": 2, "start_steps": 5, "tempering": 1.0}
ROUTINES = {
    "svi": SVI(**SVI_SHORT),
    "svi-structured": SVI(guide="structured", **SVI_SHORT),
    "svi-low-rank": SVI(guide="low-rank", rank=2, **SVI_SHORT),
    "em-point": EM(**EM_SHORT),
    "em-langevin": EM(e_step="langevin", **EM_SHORT),
    "em-mala": EM(e_step="mala", step_size=0.3, **EM_SHORT),
    "em-mh": EM(e_step="mh", e_steps=9, step_size=0.3, **EM_SHORT),
    "em-variational": EM(e_step="variational", **EM_SHORT),
    "nuts": NUTS(max_tree_depth=2, **CHAIN_SHORT),
    "hmc": HMC(steps=2, **CHAIN_SHORT),
    "guided": GuidedDiffusion(steps=4, rounds=DRAWS, chains=1, draws=DRAWS, updates=3, moves=2),
    "exact": Exact(nodes=17, draws=DRAWS, tempering=1.0),
}
CHAINS = {name: 2 if name in ("nuts", "hmc") else 1 for name in ROUTINES}
KINDS = {
    "svi": "variational",
    "svi-structured": "variational, structured guide",
    "svi-low-rank": "variational, low-rank guide",
    "em-point": "point estimate",
    "em-langevin": "Langevin, noise a point estimate",
    "em-mala": "Metropolis-adjusted Langevin, noise a point estimate",
    "em-mh": "random walk Metropolis, noise a point estimate",
    "em-variational": "variational, noise a point estimate",
    "nuts": "NUTS",
    "hmc": "HMC",
    "guided": "guided diffusion",
    "exact": "exact",
}
TRACES = {
    "svi": {"elbo"}, "svi-structured": {"elbo"}, "svi-low-rank": {"elbo"},
    "em-point": {"log_joint"}, "em-langevin": {"log_joint"},
    "em-mala": {"log_joint"}, "em-mh": {"log_joint"}, "em-variational": {"elbo"}, "exact": set(),
    "nuts": set(), "hmc": set(), "guided": set(),
}  # fmt: skip
LATENT_DRAWS = {name: 1 if name == "em-point" else DRAWS for name in ROUTINES}
MODELS = [
    *(
        (n, "gaussian")
        for n in ("stationary", "nmf", "heavy-tailed", "known", "hierarchy", "level")
    ),
    *((n, p) for n in ("stationary", "nmf", "heavy-tailed", "known") for p in ("vae", "rvae")),
    ("nmf", "tcvae"),
    ("heavy-tailed", "tcvae"),
    ("nmf", "white"),
]
TEMPERED = [("nmf", "gaussian", 0.25), ("heavy-tailed", "vae", 0.25), ("stationary", "rvae", 0.25)]
SCORED = [("guided", n, "score") for n in NOISES]
EXACT = [("exact", n, p) for n in ("known", "level") for p in ("gaussian", "white")]


def latents_of(routine, noise, prior):
    """Whether there is something to iterate on; a diffusion also has its bins."""
    return bool(SHAPES[noise] or SHAPES[prior]) or routine == "guided"


ITERATIVE = [name for name in ROUTINES if name != "exact"]
CASES = [
    *((r, n, p) for r in ITERATIVE for n in NOISES for p in PRIORS if latents_of(r, n, p)),
    *EXACT,
    *SCORED,
]


def of_each_pair():
    """Each routine with each noise model, the priors in turn."""
    for i, routine in enumerate(ITERATIVE):
        for j, noise in enumerate(NOISES):
            prior = list(PRIORS)[(i + j) % len(PRIORS)]
            if not latents_of(routine, noise, prior):
                prior = "gaussian"  # without any latent there is nothing to iterate
            yield routine, noise, prior


PAIRS = [*of_each_pair(), *EXACT, *SCORED]


def every(nth):
    """Every nth pair of a routine, others for the next one, and all exact ones."""
    return [
        (r, n, p)
        for r, n, p in PAIRS
        if (r, n, p) in EXACT or (list(NOISES).index(n) + ITERATIVE.index(r)) % nth == 0
    ]


def parametrised(fast, cases=CASES):
    """Run through all cases; those that are not among the fast ones are slow."""
    return pytest.mark.parametrize(
        ("routine", "noise", "prior"),
        [
            pytest.param(*case, marks=[] if case in fast else pytest.mark.slow, id="-".join(case))
            for case in cases
        ],
    )


every_case = parametrised(every(3))
every_case_several_times = parametrised(every(6), PAIRS)
every_pair = parametrised(PAIRS, PAIRS)
every_model = pytest.mark.parametrize(
    ("noise", "prior"), MODELS[:-1], ids=["-".join(m) for m in MODELS[:-1]]
)
every_routine = pytest.mark.parametrize("routine", ROUTINES)
iterative = pytest.mark.parametrize(
    "routine", [name for name in ITERATIVE if name not in ("nuts", "hmc")]
)


def scene_of(noise, prior):
    return Scene({**PRIORS, **SCORES}[prior], NOISES[noise])


@cache
def batch_of_two(routine, noise, prior):
    return ROUTINES[routine](scene_of(noise, prior), waves(), seed=3)


@cache
def alone(routine, noise, prior):
    """The second recording of that batch."""
    return ROUTINES[routine](scene_of(noise, prior), waves()[1], seed=4)


def run(routine, noise="known", prior="gaussian", mixture=None, seed=0, **settings) -> Posterior:
    mixture = waves(1) if mixture is None else mixture
    return replace(ROUTINES[routine], **settings)(scene_of(noise, prior), mixture, seed=seed)


@cache
def plain(routine, noise="known", seed=0):
    """What several tests of settings compare with."""
    return run(routine, noise, seed=seed)


# --- every routine, noise and prior --------------------------------------------------------------


@every_case
def test_it_runs_and_returns_what_it_says(routine, noise, prior):
    posterior = batch_of_two(routine, noise, prior)
    grid = (2, 33, TIME)
    assert posterior.mean.shape == posterior.variance.shape == posterior.mixture.shape == grid
    assert posterior.mean.dtype == posterior.mixture.dtype == np.complex64
    assert posterior.speech.shape == (CHAINS[routine], DRAWS, 2, N)
    shapes = {**SHAPES[prior], **SHAPES[noise]}
    drawn = LATENT_DRAWS[routine]
    assert {k: v.shape for k, v in posterior.latents.items()} == {
        name: (CHAINS[routine], drawn, 2, *shape) for name, shape in shapes.items()
    }
    assert posterior.n_samples == (N, N)
    assert posterior.stft == STFT
    assert all(np.isfinite(values).all() for values in arrays_of(posterior).values())
    assert (posterior.variance > 0).all()
    assert set(posterior.trace) == TRACES[routine]
    assert all(values.shape == (STEPS, 2) for values in posterior.trace.values())
    for r in range(2):
        np.testing.assert_allclose(posterior.noisy(r), waves()[r], atol=1e-4)
        if prior in ("white", "score") and routine == "guided":
            continue  # a denoised spectrogram may be louder than the mixture
        # The Wiener filter takes away and never adds, up to the mean over draws.
        assert (np.abs(posterior.mean[r]) <= np.abs(posterior.mixture[r]) * 1.0001).all()


@every_case
def test_it_says_what_was_approximated(routine, noise, prior):
    posterior = batch_of_two(routine, noise, prior)
    kind, _, about = posterior.kind.partition(" of ")
    assert kind == KINDS[routine]
    assert (routine == "guided") is bool(about)  # bins or latents, and how the noise was found
    assert posterior.attrs["routine"] == routine
    assert posterior.attrs["seed"] == 3
    assert posterior.attrs["tempering"] == 1.0
    assert posterior.attrs["inference_s"] >= 0


@every_case_several_times
def test_the_same_seed_is_the_same_to_the_bit(routine, noise, prior):
    first = arrays_of(alone(routine, noise, prior))
    torch.manual_seed(987)  # what the caller did to the global generators plays no part
    np.random.seed(987)
    second = arrays_of(ROUTINES[routine](scene_of(noise, prior), waves()[1], seed=4))
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@every_case_several_times
def test_another_seed_is_another_result(routine, noise, prior):
    first = alone(routine, noise, prior)
    second = ROUTINES[routine](scene_of(noise, prior), waves()[1], seed=5)
    np.testing.assert_array_equal(first.mixture, second.mixture)
    assert (first.speech != second.speech).mean() > 0.99
    if LATENT_DRAWS[routine] > 1:
        # The noise of Langevin EM is a point; few draws of one number on a grid may coincide.
        sure = routine.startswith("svi")
        drawn = set(first.latents) - (set() if sure else set(SHAPES[noise]))
        for name in drawn:
            assert not np.array_equal(first.latents[name], second.latents[name]), name


@every_case_several_times
def test_a_batch_is_the_loop(routine, noise, prior):
    # Single precision; a few steps do not amplify its rounding by more than this. Seeds count up
    # along a batch: its second recording is that recording alone with the next seed.
    batch, single = batch_of_two(routine, noise, prior).select(1), alone(routine, noise, prior)
    gap = np.abs(batch.mean - single.mean)
    assert gap.max() < 1e-3 * np.abs(single.mixture).mean()
    np.testing.assert_allclose(batch.variance, single.variance, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(batch.speech, single.speech, atol=5e-3)
    assert set(batch.latents) == set(single.latents)
    for name, values in single.latents.items():
        np.testing.assert_allclose(batch.latents[name], values, rtol=1e-2, atol=5e-3, err_msg=name)


@pytest.mark.gpu
@every_pair
def test_cuda_is_near_the_cpu(routine, noise, prior):
    # The generators of the two differ, and with them starts and draws: the same posterior up to
    # its own spread, and to the bit where nothing was drawn.
    longer = {
        "exact": {},
        "svi": {"steps": 150},
        "svi-structured": {"steps": 150},
        "svi-low-rank": {"steps": 150},
        "nuts": {"warmup": 50},
        "hmc": {"warmup": 50},
        "guided": {"steps": 20, "rounds": 50},
    }
    settings = longer.get(routine.split("-")[0], {"rounds": 150})
    cpu, cuda = (
        replace(ROUTINES[routine], device=device, draws=50, **settings)(
            scene_of(noise, prior), waves(), seed=3
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.mixture, cuda.mixture, rtol=1e-3, atol=1e-4)
    gap = np.abs(cpu.mean - cuda.mean) / cpu.sd
    assert np.sqrt(np.mean(gap**2)) < (1e-3 if routine == "exact" else 0.5)
    assert cuda.kind == cpu.kind
    assert all(np.isfinite(values).all() for values in arrays_of(cuda).values())


@pytest.mark.gpu
@every_routine
def test_auto_takes_cuda_where_it_is(routine):
    auto, cuda = (run(routine, device=device) for device in ("auto", "cuda"))
    np.testing.assert_array_equal(auto.speech, cuda.speech)


# --- settings ------------------------------------------------------------------------------------


@every_routine
@pytest.mark.parametrize("tempering", [0.25, 0.5])
def test_tempering_is_flagged(routine, tempering):
    untempered, tempered = plain(routine), run(routine, tempering=tempering)
    assert tempered.kind.startswith(KINDS[routine])
    assert tempered.kind.endswith(f", tempered {tempering:g}")
    assert tempered.attrs["tempering"] == tempering
    assert not np.array_equal(untempered.mean, tempered.mean)


@every_routine
def test_waveforms_can_be_left_out(routine):
    lean, full = run(routine, waveforms=False), plain(routine)
    assert lean.speech.shape == (CHAINS[routine], 0, 1, N)
    np.testing.assert_array_equal(lean.mean, full.mean)
    np.testing.assert_array_equal(lean.variance, full.variance)
    assert set(lean.latents) == set(full.latents)


@every_routine
@pytest.mark.parametrize("draws", [1, 7])
def test_as_many_draws_as_asked_for(routine, draws):
    posterior = run(routine, draws=draws)
    assert posterior.speech.shape == (CHAINS[routine], draws, 1, N)
    assert posterior.draws().shape == (CHAINS[routine] * draws, N)


@every_routine
@pytest.mark.parametrize("noise", ["known", "level"])
def test_double_precision_is_near_single(routine, noise):
    if routine in ("nuts", "hmc"):  # chains as short as these have to start near
        kinds = (torch.float32, torch.float64)
        single, double = (run(routine, noise, start_steps=40, dtype=kind) for kind in kinds)
    else:
        single, double = plain(routine, noise), run(routine, noise, dtype=torch.float64)
    # Each draws numbers of its own precision, which are other numbers.
    assert np.sqrt(np.mean(np.abs(single.mean - double.mean) ** 2 / double.variance)) < 1.0
    assert double.mean.dtype == np.complex64


@iterative
def test_progress_is_reported(routine):
    seen = []
    run(routine, progress=lambda step, steps: seen.append((step, steps)))
    assert seen == [(i + 1, STEPS) for i in range(STEPS)]


def bad_settings():
    counts = {
        "svi": ["steps", "draws", "rank"],
        "em-point": ["rounds", "e_steps", "draws"],
        "nuts": ["draws", "chains", "start_steps", "warmup", "max_tree_depth"],
        "hmc": ["steps"],
        "exact": ["draws"],
    }
    numbers = {"svi": ["learning_rate", "tempering"], "em-point": ["step_size", "tempering"],
               "exact": ["tempering"], "nuts": ["tempering"]}  # fmt: skip
    for routine, names in counts.items():
        for name in names:
            for bad in (0, -1, 2.5, True, "5"):
                yield routine, name, bad, f"{name} must be a whole number of at least"
    for routine, names in numbers.items():
        for name in names:
            for bad in (0.0, -0.1, float("nan"), float("inf")):
                yield routine, name, bad, f"{name} must be a finite number above 0"
    for bad in (0, 8, 33.0):
        yield "exact", "nodes", bad, "nodes must be a whole number of at least"
    for bad in (0, 2.5):
        yield "svi", "moment_draws", bad, "moment_draws must be a whole number of at least"
    for bad in (-1, 1.5, True, "5"):
        yield "svi", "noise_updates", bad, "noise_updates must be a whole number of at least 0"
    for bad in (-1, 1, 24, 50.0, True, False):
        yield "svi", "k_hat_draws", bad, "k_hat_draws must be a whole number of at least 25"
    for bad in ("banded", "", None):
        yield "svi", "guide", bad, "unknown guide"
    for bad in (-1e-6, float("nan")):
        yield "svi", "tolerance", bad, "tolerance must be at least 0"
    for bad in ("gibbs", "", None):
        yield "em-point", "e_step", bad, "e_step must be one of"
    for bad in (0.0, 1.0, float("nan")):
        yield "nuts", "target_acceptance", bad, "target_acceptance must be between 0 and 1"
    for bad in (0, 2.5):
        yield "nuts", "waveforms", bad, "waveforms must be a whole number of at least"
    yield "nuts", "start", "encoder", "start must be one of"


@pytest.mark.parametrize(("routine", "name", "bad", "text"), list(bad_settings()))
def test_a_bad_setting_is_refused_when_it_is_set(routine, name, bad, text):
    with pytest.raises(ValueError, match=text):
        replace(ROUTINES[routine], **{name: bad})


# --- input ---------------------------------------------------------------------------------------


@every_routine
def test_video_is_refused_by_a_prior_that_does_not_see(routine):
    with pytest.raises(ValueError, match="audio-only and would ignore the video"):
        ROUTINES[routine](scene_of("known", "gaussian"), waves(1), np.zeros((9, 67, 67)), seed=0)


@every_routine
@pytest.mark.parametrize("seed", [1.5, "0", None, True])
def test_a_bad_seed(routine, seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        run(routine, seed=seed)


@every_routine
def test_an_unknown_device(routine):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu' or 'cuda'"):
        run(routine, device="tpu")


@every_routine
def test_cuda_asked_for_and_absent(routine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        run(routine, device="cuda")


@every_routine
@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.full(N, np.nan), "NaN or infinite samples"),
        (np.zeros(N), "is silent"),
        (np.ones(63), "at least 64 samples"),
    ],
    ids=["NaN", "silence", "short"],
)
def test_a_recording_that_is_not_usable(routine, bad, text):
    with pytest.raises(ValueError, match=text):
        run(routine, mixture=bad)


@every_routine
def test_a_spectrogram_of_another_front_end(routine):
    with pytest.raises(ValueError, match="the speech prior was made for"):
        run(routine, mixture=Stft(n_fft=32, hop=8).analyse(waves(1)))


@every_routine
def test_a_noise_model_of_the_wrong_shape(routine):
    def flat(frames):
        return ComplexNormal(0.0, torch.ones(frames.freq))

    scene = Scene(PRIORS["gaussian"], flat)
    with pytest.raises(ValueError, match=r"noise model 'flat' returned shape \(33,\)"):
        ROUTINES[routine](scene, waves(1), seed=0)


@every_routine
@pytest.mark.parametrize(
    ("name", "law", "text"),
    [
        ("on", dist.Bernoulli(0.5), "is discrete"),
        ("speech", dist.LogNormal(0.0, 1.0), "has a reserved name"),
        ("a/b", dist.LogNormal(0.0, 1.0), "cannot be stored"),
        ("level", dist.Uniform(0.0, float("inf")), "need not exist"),
    ],
    ids=["discrete", "reserved", "slash", "improper"],
)
def test_a_latent_that_cannot_be_inferred(routine, name, law, text):
    scene = Scene(PRIORS["gaussian"], lambda frames: ComplexNormal(0.0, pyro.sample(name, law)))
    with pytest.raises(ValueError, match=text):
        ROUTINES[routine](scene, waves(1), seed=0)


@iterative
def test_each_recording_may_have_its_seed(routine):
    together = run(routine, "nmf", mixture=waves(2), seed=[9, 4])
    assert together.attrs["seed"] == [9, 4]
    for row, seed in enumerate((9, 4)):
        alone = run(routine, "nmf", mixture=waves(2)[row : row + 1], seed=seed)
        np.testing.assert_allclose(together.mean[row], alone.mean[0], atol=1e-3)
        np.testing.assert_allclose(together.speech[:, :, row], alone.speech[:, :, 0], atol=1e-3)
        assert together.select(row).attrs["seed"] == seed


@iterative
def test_recordings_of_different_length_share_a_batch(routine):
    both = run(routine, "nmf", mixture=[waves()[0], waves()[1][:200]], seed=3)
    assert both.n_samples == (N, 200)
    assert all(np.isfinite(values).all() for values in arrays_of(both).values())
    first = run(routine, "nmf", mixture=waves()[:1], seed=3)
    np.testing.assert_allclose(both.mean[0], first.mean[0], atol=1e-2)


# --- what the iterations do ----------------------------------------------------------------------


@every_model
def test_svi_raises_its_bound(noise, prior):
    routine = SVI(steps=50, tolerance=0, draws=2, k_hat_draws=25, waveforms=False)
    elbo = routine(scene_of(noise, prior), waves(), seed=0).trace["elbo"]
    before, after = elbo[:10], elbo[-20:]
    error = np.sqrt(before.var(0) / len(before) + after.var(0) / len(after))
    assert (after.mean(0) > before.mean(0) - 3 * error).all()
    assert (after.mean(0) - before.mean(0)).max() > 0


def test_svi_stops_when_nothing_rises():
    scene = scene_of("known", "gaussian")
    patient, hasty = (
        SVI(steps=400, tolerance=tolerance, draws=2, waveforms=False)(scene, waves(1), seed=0)
        for tolerance in (0.0, 0.01)
    )
    assert len(patient.trace["elbo"]) == patient.attrs["steps"] == 400
    assert not patient.attrs["converged"]
    assert len(hasty.trace["elbo"]) == hasty.attrs["steps"] < 400
    assert hasty.attrs["converged"]
    n = len(hasty.trace["elbo"])
    gain = patient.trace["elbo"][-50:].mean() - patient.trace["elbo"][n - 25 : n].mean()
    assert gain < 0.05 * 33 * TIME  # nats; the tolerance is 0.01 a bin a window


@pytest.mark.parametrize(
    ("noise", "prior", "tempering"), [*((*model, 1.0) for model in MODELS[:-1]), *TEMPERED]
)
def test_em_climbs(noise, prior, tempering):
    # Adam's steps are not monotone by construction, but small ones are, to 0.1 nats in thousands.
    routine = EM(rounds=20, step_size=0.01, draws=1, waveforms=False, tempering=tempering)
    log_joint = routine(scene_of(noise, prior), waves(), seed=0).trace["log_joint"]
    assert np.diff(log_joint, axis=0).min() > -0.1
    assert (log_joint[-1] - log_joint[0] > 3).all()


@pytest.mark.parametrize("noise", ["nmf", "heavy-tailed"])
def test_the_log_joint_that_em_logs_is_that_of_the_scene(noise):
    # What round k logs is the density at the state that round k - 1 ended in.
    scene, mixture = scene_of(noise, "gaussian"), STFT.analyse(waves(1))
    routine = EM(rounds=4, draws=1, waveforms=False, tempering=0.5)
    values = {
        name: torch.from_numpy(v[0, 0])
        for name, v in routine(scene, mixture, seed=0).latents.items()
    }
    joint = LogDensity(scene, mixture).joint(values)
    logged = replace(routine, rounds=5)(scene, mixture, seed=0).trace["log_joint"][-1]
    assert float(logged[0]) == pytest.approx(float(0.5 * joint.likelihood + joint.prior), abs=0.05)


def test_langevin_keeps_the_later_half():
    for rounds, draws, kept in ((12, 50, 6), (12, 3, 3), (1, 5, 1)):
        posterior = run("em-langevin", rounds=rounds, draws=draws)
        assert posterior.latents["speech.gain"].shape[1] == kept
        assert posterior.speech.shape[1] == draws


def test_more_e_steps_are_more_moves():
    one, three = (run("em-point", "stationary", rounds=2, e_steps=n) for n in (1, 3))
    four = run("em-point", "known", rounds=6, e_steps=1)
    same = run("em-point", "known", rounds=2, e_steps=3)
    assert not np.array_equal(one.mean, three.mean)
    np.testing.assert_allclose(four.latents["speech.gain"], same.latents["speech.gain"], atol=1e-5)
