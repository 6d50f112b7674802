"""Draws of the E-steps against the posterior they are to be from, the noise known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from avse_ppl import EM, Exact, LatentSpeech, Scene, Stft
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import choose_blocks, single_block, striped_blocks
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.metropolis import Metropolis
from avse_ppl.inference.em.proposals import LangevinWalk, RandomWalk
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import CPU, STFT, known_noise

TINY = Stft(n_fft=8, hop=2)


# --- the ruler: frames that are independent given the noise ---------------------------------------


@cache
def infer_reference(tempering):
    """Recordings of the ruler's world, and the exact posterior of their gains."""
    scene = reference_scene(True, stft=STFT)
    mixture = simulate(scene, 480, recordings=3, seed=5).mixture
    exact = Exact(draws=2000, waveforms=False, tempering=tempering)(scene, mixture, seed=1)
    return scene, mixture, exact.latents["speech.gain"][0], exact


def effective_sample_size(draws):
    """Number of independent draws that a chain is worth, by batch means, ``(draw, ...)``."""
    batches = draws[: len(draws) // 20 * 20].reshape(20, -1, *draws.shape[1:]).mean(1)
    return len(draws) * np.mean(draws.var(0)) / np.mean(len(draws) / 20 * batches.var(0, ddof=1))


@pytest.mark.parametrize(
    ("e_step", "tempering"),
    [  # a quarter of a minute with gradients, half of that without
        ("mh", 1.0),
        ("mh", 0.25),
        ("mala", 1.0),
        ("mala", 0.25),
    ],
)
@pytest.mark.slow
def test_metropolis_draws_are_from_the_posterior(e_step, tempering):
    scene, mixture, truth, exact = infer_reference(tempering)
    routine = EM(
        e_step, iterations=400, e_steps=3, step_size=1.0, draws=200, waveforms=False,
        tempering=tempering,
    )  # fmt: skip
    posterior = routine(scene, mixture, seed=0)
    draws = posterior.latents["speech.gain"][0]
    worth = effective_sample_size(draws)
    assert worth > 60  # so that the lines below can fail
    gap = (draws.mean(0) - truth.mean(0)) / truth.std(0)
    error = np.sqrt(1 / worth + 1 / len(truth))
    assert np.sqrt(np.mean(gap**2)) < 1.3 * error
    assert np.abs(gap).max() < 5 * error
    ratio = draws.std(0) / truth.std(0)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.06)
    # Speech follows: what is left is the error of the mean over draws.
    speech = np.abs(posterior.mean - exact.mean) / exact.sd
    assert np.sqrt(np.mean(speech**2)) < error
    assert np.median(posterior.sd / exact.sd) == pytest.approx(1.0, abs=0.03)
    rate = posterior.stats["acceptance_rate"].mean((0, 1))
    low, high = (0.45, 0.7) if e_step == "mala" else (0.17, 0.35)
    assert (rate > low).all()
    assert (rate < high).all()
    assert posterior.warnings == ()


def test_the_guide_is_near_the_posterior():
    # Frames are independent given the noise, so that a mean field loses nothing but the shape.
    scene, mixture, truth, _ = infer_reference(1.0)
    routine = EM(
        "variational", iterations=300, e_steps=1, step_size=0.05, draws=400, waveforms=False
    )  # fmt: skip
    draws = routine(scene, mixture, seed=0).latents["speech.gain"][0]
    gap = (draws.mean(0) - truth.mean(0)) / truth.std(0)
    assert np.sqrt(np.mean(gap**2)) < 0.2
    assert np.median(draws.std(0) / truth.std(0)) == pytest.approx(1.0, abs=0.07)


# --- priors that couple frames -------------------------------------------------------------------


@cache
def make_prior(kind):
    """A small prior whose decoder makes much of its latents."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = {
            "vae": lambda: VaeNetwork(5, 2, hidden=(6,)),
            "rvae": lambda: RvaeNetwork(5, 2, hidden=5),
            "tcvae": lambda: TcvaeNetwork(5, 2, hidden=6, blocks=1, encoder_hidden=4),
        }[kind]()
    weight = network.decoder_logpower
    nn.init.zeros_(weight.bias)
    weight.weight.data *= 1.0 / weight.weight.data.std()
    if kind == "rvae":  # a long and strong memory
        for name, value in network.decoder.named_parameters():
            value.data *= 3.0 if "weight" in name else 1.0
    return LatentSpeech(network.requires_grad_(False), stft=TINY, name=kind)


def importance_sample(scene, mixture, draws=200_000):
    """Posterior mean and sd of the latents of one recording, by weighting draws of the prior."""
    generator = torch.Generator().manual_seed(0)
    time = mixture.frames.time
    z = torch.randn(draws, scene.speech.network.latent, time, generator=generator)
    level = torch.randn(draws, 1, 1, generator=generator)
    gain = torch.exp(np.log(10) / 10 * 6.0 * level)
    with torch.no_grad():
        power = scene.speech.network.decode(z).exp() * gain + 0.3
    log_weight = (-power.log() - mixture.power / power).sum((1, 2))
    weight = torch.softmax(log_weight.double(), 0)
    rows = torch.cat((z.flatten(1), level.flatten(1)), 1).double()
    mean = weight @ rows
    sd = (weight @ rows.square() - mean.square()).sqrt()
    return mean.numpy(), sd.numpy(), float(1 / weight.square().sum())


def run_metropolis(scene, mixture, e_step, schedules=None, step_size=0.7, seed=0):
    score = FrameLogDensity(LogDensity(scene, mixture))
    ones = {site.name: torch.ones_like(site.start) for site in score.sites}
    proposal = LangevinWalk(ones) if e_step == "mala" else RandomWalk(ones)
    schedules = schedules or choose_blocks(score, scene.speech.receptive_field, proposal.gradients)
    randoms = RandomStreams(seed, mixture.recordings, CPU)
    return Metropolis(score, schedules, proposal, randoms, step_size=step_size, target=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("e_step", ["mala", "mh"])
def test_coupled_frames_against_importance_sampling(e_step):
    # Four frames in two windows that reach far into each other; 64 chains of one recording.
    scene = Scene(make_prior("rvae"), known_noise)
    one = simulate(scene, 8, seed=2).mixture
    many = TINY.analyse([np.ones(8, "float32")] * 64)
    mixture = type(many)(one.values.expand(64, -1, -1), one.frames, many.n_samples,
                         torch.ones(64), TINY)  # fmt: skip
    mean, sd, worth = importance_sample(scene, one)
    assert worth > 1000
    time = one.frames.time
    schedules = [*striped_blocks(time, 2, False, CPU), single_block(time, CPU, frames=False)]
    mover = run_metropolis(scene, mixture, e_step, schedules if e_step == "mh" else None)
    state = {"speech.z": torch.zeros(64, 2, time), "speech.level": torch.zeros(64, 1, 1)}
    mover.run_steps(state, 100, burn_in=True)
    rows = []
    for _ in range(100):
        mover.run_steps(state, 5 if e_step == "mh" else 2, burn_in=False)
        rows.append(torch.cat([u.flatten(1) for u in state.values()], 1).numpy())
    draws = np.stack(rows)  # (draw, chain, latent)
    chains = draws.mean(0)
    error = chains.std(0, ddof=1) / 8
    assert (error < 0.1 * sd).all()
    assert (np.abs(chains.mean(0) - mean) < 4.5 * np.hypot(error, sd / np.sqrt(worth))).all()
    np.testing.assert_allclose(draws.std((0, 1)) / sd, 1.0, atol=0.08)


CASES = [  # each move among the fast ones
    pytest.param(e_step, kind, marks=[] if fast else pytest.mark.slow)
    for e_step, kind, fast in (
        ("mh", "vae", True), ("mh", "tcvae", False), ("mh", "rvae", False),
        ("mala", "vae", False), ("mala", "tcvae", True), ("mala", "rvae", False),
    )
]  # fmt: skip


def simulate_shifts(e_step, kind, schedules=None, moves=60, recordings=700):
    """z scores of how statistics of latents and mixture change when latents move.

    Latents and mixture are drawn from the scene, so that the latents are from their posterior;
    moves that leave it invariant leave all means where they are.
    """
    scene = Scene(make_prior(kind), known_noise)
    world = simulate(scene, 50, recordings=recordings, seed=7)
    mover = run_metropolis(scene, world.mixture, e_step, schedules, step_size=0.4)
    state = {name: world.latents[name].clone() for name in mover.sizes}
    before = statistics(mover, state)
    mover.run_steps(state, moves, burn_in=False)
    moved = (state["speech.z"] - world.latents["speech.z"]).abs().mean()
    change = statistics(mover, state) - before
    z = change.mean(0) / (change.std(0) / np.sqrt(recordings)).clamp_min(1e-9)
    return z.numpy(), float(moved)


def make_overlapping_blocks(blocks_independent):
    """Every third frame moves: with a recurrent decoder, all windows reach into each other."""
    time = TINY.count_frames(50)
    return [
        *striped_blocks(time, 3, blocks_independent, CPU),
        single_block(time, CPU, frames=False),
    ]


def statistics(mover, state):
    """Functions of latents and mixture, ``(recording, statistic)``."""
    score = mover.log_density(mover.log_density.speech_of(state), {}, gradients=False)
    z, level = state["speech.z"], state["speech.level"][:, 0, 0]
    rows = [
        score.total, score.frames[:, 8:16].sum(1), score.power.log().mean((1, 2)), level,
        level.square(), z.square().mean((1, 2)), (z[..., 1:] * z[..., :-1]).mean((1, 2)),
        z.mean((1, 2)),
    ]  # fmt: skip
    return torch.stack(rows, 1)


@pytest.mark.parametrize(("e_step", "kind"), CASES)
def test_moves_leave_the_joint_law_invariant(e_step, kind):
    # Eight statistics, six cases: 4.5 sd are exceeded by chance once in 3000 times.
    schedules = (
        make_overlapping_blocks(blocks_independent=False)
        if (e_step, kind) == ("mh", "rvae")
        else None
    )
    z, moved = simulate_shifts(e_step, kind, schedules)
    assert moved > 0.3
    assert np.abs(z).max() < 4.5, z


def test_windows_wrongly_taken_for_independent_would_be_found_out():
    z, _ = simulate_shifts("mh", "rvae", make_overlapping_blocks(blocks_independent=True))
    assert np.abs(z).max() > 6


@pytest.mark.parametrize("e_step", ["mh", "mala"])
def test_a_reach_that_is_understated_would_be_found_out(e_step, monkeypatch):
    monkeypatch.setattr(make_prior("tcvae").network, "receptive_field", 0)
    z, _ = simulate_shifts(e_step, "tcvae")
    assert np.abs(z).max() > 10
