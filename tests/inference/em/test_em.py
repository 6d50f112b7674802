"""The E-steps of EM: what they score, propose and accept, and what they say when it goes wrong."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import EM, NMF, ComplexNormal, GaussianSpeech, LatentSpeech, Scene, stationary
from avse_ppl.inference.core.adam import Adam
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import choose_blocks, striped_blocks
from avse_ppl.inference.em.e_steps import GradientStep, VariationalStep
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.metropolis import Metropolis
from avse_ppl.inference.em.proposals import LangevinWalk, RandomWalk
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import CPU, STFT, known_noise, make_network, waves

N = 320


def scene_of(kind, noise=stationary):
    return Scene(LatentSpeech(make_network(kind), stft=STFT, name=kind), noise)


def scored(kind="vae", mixture=None, noise=stationary, tempering=1.0):
    """Score of a scene, and some state of it."""
    scene = scene_of(kind, noise)
    density = LogDensity(scene, STFT.analyse(waves()) if mixture is None else mixture)
    torch.manual_seed(1)
    state = {site.name: 0.5 * torch.randn(site.shape) for site in density.sites}
    return FrameLogDensity(density, tempering), state


# --- the score -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tempering", [1.0, 0.3])
@pytest.mark.parametrize("lengths", [(N, N), (N, 200)], ids=["equal", "padded"])
def test_the_score_is_the_log_joint(tempering, lengths):
    mixture = STFT.analyse([w[:n] for w, n in zip(waves(), lengths, strict=True)])
    score, state = scored(mixture=mixture, tempering=tempering)
    speech, noise = score.speech_of(state), score.noise_of(state)
    found = score(speech, noise, gradients=True)
    leaves = {name: u.clone().requires_grad_() for name, u in speech.items()}
    joint = score.density.joint(score.density.constrain(leaves)[0] | noise)
    total = tempering * joint.likelihood + joint.prior
    torch.testing.assert_close(found.total, total.detach(), rtol=1e-4, atol=1e-2)
    slopes = torch.autograd.grad(total.sum(), list(leaves.values()))
    for slope, name in zip(slopes, leaves, strict=True):
        torch.testing.assert_close(found.gradients[name], slope, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.power, joint.laws.speech.power.detach())
    plain = score(speech, noise, gradients=False)
    assert plain.gradients == {}
    torch.testing.assert_close(plain.frames, found.frames)


def test_the_score_counts_the_jacobian_of_speech_only():
    def gamma_speech(frames, visual=None):
        with pyro.plate("time", frames.time, dim=-1):
            gain = pyro.sample("gain", dist.Gamma(2.0, 2.0))
        return ComplexNormal(0.0, gain.expand((*gain.shape[:-2], frames.freq, frames.time)))

    gamma_speech.stft = STFT
    scene = Scene(gamma_speech, stationary)
    density = LogDensity(scene, STFT.analyse(waves()))
    score = FrameLogDensity(density)
    state = {site.name: 0.1 * torch.ones(site.shape) for site in density.sites}
    found = score(score.speech_of(state), score.noise_of(state), gradients=False).total
    noise_jacobian = density.constrain({"noise.power": state["noise.power"]})[1]
    torch.testing.assert_close(found, density(state) - noise_jacobian, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(("kind", "receptive_field"), [("vae", 0), ("tcvae", 9), ("rvae", None)])
def test_a_network_says_how_far_its_decoder_reaches(kind, receptive_field):
    prior = LatentSpeech(make_network(kind), stft=STFT)
    assert prior.receptive_field == receptive_field
    z = torch.zeros(1, 3, 41)
    other = z.clone()
    other[:, :, 20] = 3.0
    with torch.no_grad():
        changed = (prior.network.decode(z) != prior.network.decode(other)).any(1)[0]
    where = changed.nonzero()[:, 0]
    expected = 20 if receptive_field is None else receptive_field
    assert (int(where.min()), int(where.max())) == (20 - expected, 20 + expected)


def test_frames_are_scored_where_they_belong():
    score, state = scored("tcvae", noise=known_noise)
    before = score(state, {}, gradients=False)
    other = {name: u.clone() for name, u in state.items()}
    other["speech.z"][:, :, 3] += 1.0
    change = (score(other, {}, gradients=False).frames - before.frames).abs()
    assert (change[:, :13] > 0).any(0).all()
    assert (change[:, 13:] == 0).all()
    other = state | {"speech.level": state["speech.level"] + 1.0}
    assert (score(other, {}, gradients=False).rest != before.rest).all()


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "window"), [(1, 1), (7, 1), (20, 8), (5, 8), (1, 8), (40, 19)])
def test_schedules_move_every_frame_once(time, window):
    schedules = striped_blocks(time, window, True, CPU)
    assert torch.equal(sum(schedule.active.int() for schedule in schedules), torch.ones(time).int())
    for schedule in schedules:
        frames = schedule.active.nonzero()[:, 0]
        assert (frames.diff() == window).all()
        assert len(schedule.blocks.unique()) == schedule.count
        # A window reaches from the frame that moves to half way to the next.
        distance = (torch.arange(time)[:, None] - frames).abs().min(1).values
        assert int(distance[schedule.blocks == schedule.blocks[frames[0]]].max()) <= window // 2
        assert schedule.blocks[frames].unique().numel() == len(frames)


@pytest.mark.parametrize(
    ("kind", "gradients", "windows"),
    [
        ("vae", False, {1, 21}), ("vae", True, {1, 21}), ("tcvae", True, {1}), ("rvae", True, {1}),
        ("tcvae", False, {1, 2, 3}), ("rvae", False, {1, 3, 4}),
    ],
)  # fmt: skip
def test_what_is_accepted_together(kind, gradients, windows):
    score, _ = scored(kind)
    schedules = choose_blocks(score, score.density.scene.speech.receptive_field, gradients)
    assert {schedule.count for schedule in schedules} == windows
    assert all(schedule.blocks_independent for schedule in schedules) == (
        kind != "rvae" or gradients
    )
    assert any(schedule.shared for schedule in schedules)


class Silent:
    """The ruler's prior, without saying that its frames are independent."""

    stft = STFT

    def __call__(self, frames, visual=None):
        return GaussianSpeech(stft=STFT)(frames)


def test_a_prior_that_does_not_say_couples_all_frames():
    def changes(speech):
        routine = EM("mala", iterations=40, step_size=0.5, draws=20, waveforms=False)
        gains = routine(Scene(speech, known_noise), waves(1), seed=0).latents["speech.gain"][
            0, :, 0, 0
        ]
        return (np.diff(gains, axis=0) != 0).mean(1)

    assert set(changes(Silent())) == {0.0, 1.0}
    assert len(set(changes(GaussianSpeech(stft=STFT)))) > 2


# --- proposals -----------------------------------------------------------------------------------


def test_the_way_of_a_langevin_walk_has_the_density_it_says():
    score, state = scored("vae", noise=known_noise)
    here = score(state, {}, gradients=True)
    scale = {name: 0.1 + torch.rand(u.shape) for name, u in state.items()}
    sizes = {name: torch.tensor(0.3) for name in state}
    unit = {name: torch.randn(u.shape) for name, u in state.items()}
    walk = LangevinWalk(scale)
    there = walk.draw(state, here, sizes, unit)
    found = walk.log_density(there, state, here, sizes)
    for name, u in state.items():
        mean = u + 0.5 * 0.09 * scale[name].square() * here.gradients[name]
        law = torch.distributions.Normal(mean, 0.3 * scale[name])
        constant = -torch.log(0.3 * scale[name]) - 0.5 * np.log(2 * np.pi)
        torch.testing.assert_close(found[name] + constant, law.log_prob(there[name]),
                                   rtol=1e-3, atol=1e-3)  # fmt: skip


def test_what_has_no_step_stays():
    score, state = scored("vae", noise=known_noise)
    here = score(state, {}, gradients=True)
    scale = {name: torch.ones_like(u) for name, u in state.items()}
    sizes = {"speech.z": torch.zeros(1), "speech.level": torch.ones(1)}
    unit = {name: torch.ones_like(u) for name, u in state.items()}
    for walk in (RandomWalk(scale), LangevinWalk(scale)):
        there = walk.draw(state, here, sizes, unit)
        assert torch.equal(there["speech.z"], state["speech.z"])
        assert (there["speech.level"] != state["speech.level"]).all()
        back = walk.log_density(there, state, here, sizes)
        assert (back.get("speech.z", torch.zeros(1)) == 0).all()


def test_a_langevin_walk_learns_the_precision():
    walk = LangevinWalk({"u": torch.ones(1, 1, 1)})
    slope = torch.full((1, 1, 1), 3.0)
    for _ in range(400):
        walk.learn(type("Here", (), {"gradients": {"u": slope}}))
    assert float(walk.precision["u"]) == pytest.approx(9.0, rel=1e-2)


# --- moves ---------------------------------------------------------------------------------------


def mover_of(kind, walk=RandomWalk, step_size=0.5, target=0.4, schedules=None):
    score, state = scored(kind, noise=known_noise)
    ones = {site.name: torch.ones_like(site.start) for site in score.sites}
    proposal = walk(ones)
    schedules = schedules or choose_blocks(
        score, score.density.scene.speech.receptive_field, proposal.gradients
    )
    randoms = RandomStreams(0, 2, CPU)
    mover = Metropolis(score, schedules, proposal, randoms, step_size=step_size, target=target)
    return mover, state


@pytest.mark.parametrize(
    ("kind", "walk"),
    [("vae", RandomWalk), ("vae", LangevinWalk), ("tcvae", RandomWalk), ("rvae", RandomWalk),
     ("rvae", LangevinWalk)],
)  # fmt: skip
def test_the_score_that_is_carried_along_is_that_of_the_state(kind, walk):
    mover, state = mover_of(kind, walk, step_size=0.1)
    mover.run_steps(state, 40, burn_in=True)
    moves = mover.run_steps(state, 40, burn_in=False)
    score = mover.log_density(mover.log_density.speech_of(state), {}, gradients=False)
    torch.testing.assert_close(moves[-1].objective, score.total, rtol=1e-5, atol=0.05)
    torch.testing.assert_close(moves[-1].power, score.power, rtol=1e-3, atol=1e-5)
    assert len({float(move.objective[0]) for move in moves}) > 5


@pytest.mark.parametrize("kind", ["vae", "rvae"])
def test_each_proposal_follows_the_slope_of_its_own_state(kind, monkeypatch):
    mover, state = mover_of(kind, LangevinWalk, step_size=0.1)
    seen, draw = set(), mover.proposal.draw

    def checked(x, here, sizes, unit):
        fresh = mover.log_density(x, {}, gradients=True).gradients
        for name in (name for name, size in sizes.items() if bool((size > 0).any())):
            torch.testing.assert_close(here.gradients[name], fresh[name], rtol=1e-3, atol=1e-3)
            seen.add(name)
        return draw(x, here, sizes, unit)

    monkeypatch.setattr(mover.proposal, "draw", checked)
    mover.run_steps(state, 12, burn_in=False)
    assert seen == {"speech.z", "speech.level"}


@pytest.mark.parametrize(("kind", "walk"), [("vae", RandomWalk), ("rvae", LangevinWalk)])
def test_where_the_recording_says_nothing_draws_are_from_the_prior(kind, walk):
    scene = scene_of(kind, lambda frames: ComplexNormal(0.0, 1e6))
    score = FrameLogDensity(LogDensity(scene, STFT.analyse(waves(100))))
    ones = {site.name: torch.ones(site.shape) for site in score.sites}
    proposal = walk(ones)
    mover = Metropolis(
        score,
        choose_blocks(score, scene.speech.receptive_field, proposal.gradients),
        proposal,
        RandomStreams(0, 100, CPU),
        step_size=1.0,
        target=0.4,
    )
    state = {name: 2.0 * one for name, one in ones.items()}
    mover.run_steps(state, 300, burn_in=True)
    mover.run_steps(state, 100, burn_in=False)
    level, z = state["speech.level"], state["speech.z"]
    for values, error in ((level, 0.1), (z, 1 / np.sqrt(z.numel()))):
        assert float(values.mean()) == pytest.approx(0.0, abs=4.5 * error)
        assert float(values.std()) == pytest.approx(1.0, abs=4.5 * error / np.sqrt(2))


def test_steps_adapt_while_burning_in_and_never_after():
    mover, state = mover_of("vae", step_size=5.0)
    before = {name: size.clone() for name, size in mover.sizes.items()}
    mover.run_steps(state, 20, burn_in=False)
    assert all(torch.equal(mover.sizes[name], before[name]) for name in before)
    mover.run_steps(state, 200, burn_in=True)
    assert all((mover.sizes[name] < before[name]).all() for name in before)
    rates = [move.acceptance for move in mover.run_steps(state, 100, burn_in=False)]
    assert float(torch.stack(rates).mean()) == pytest.approx(0.4, abs=0.1)


def test_a_langevin_walk_learns_while_burning_in_and_never_after():
    mover, state = mover_of("rvae", LangevinWalk, step_size=0.1)
    before = mover.proposal.precision["speech.z"].clone()
    mover.run_steps(state, 3, burn_in=False)
    assert torch.equal(mover.proposal.precision["speech.z"], before)
    mover.run_steps(state, 3, burn_in=True)
    assert not torch.equal(mover.proposal.precision["speech.z"], before)


def test_whole_recordings_are_accepted_together():
    mover, state = mover_of("rvae", LangevinWalk, step_size=0.1)
    mover.run_steps(state, 60, burn_in=True)
    seen = set()
    for _ in range(30):
        before = {name: u.clone() for name, u in state.items()}
        mover.run_steps(state, 1, burn_in=False)
        for r in range(2):
            moved = [(state[name][r] != before[name][r]).flatten() for name in state]
            share = float(torch.cat(moved).float().mean())
            assert share in (0.0, pytest.approx(1.0, abs=0.02))  # a step may round to nothing
            seen.add(share > 0.5)
    assert seen == {True, False}


def test_a_proposal_that_is_not_a_number_is_refused():
    mover, state = mover_of("vae")
    before = {name: u.clone() for name, u in state.items()}
    mover.sizes = {name: size * float("nan") for name, size in mover.sizes.items()}
    moves = mover.run_steps(state, 4, burn_in=False)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert all((move.acceptance == 0).all() for move in moves)


class GradientDescent(Adam):
    """Plain steps in place of Adam's."""

    def step(self, learning_rate):
        for parameter in self.parameters:
            parameter.data -= learning_rate * parameter.grad


def test_the_guide_follows_the_gradient_of_its_bound():
    # Against autograd through the draw, on one step of plain gradient ascent.
    score, state = scored("vae", noise=known_noise)
    location = {name: u.clone().requires_grad_() for name, u in state.items()}
    log_sd = {name: torch.full_like(u, -1.0).requires_grad_() for name, u in state.items()}
    step = VariationalStep(score, RandomStreams(5, 2, CPU), location, log_sd, 1.0, 10)
    step.adam = GradientDescent([*step.location.values(), *step.log_sd.values()], (0.0, 0.0))
    start = {name: (step.location[name].clone(), step.log_sd[name].clone()) for name in location}
    (move,) = step.run_steps(dict(state), 1, burn_in=True)
    randoms = RandomStreams(5, 2, CPU)
    draw = {n: location[n] + log_sd[n].exp() * randoms.normal(u.shape, u.dtype)
            for n, u in state.items()}  # fmt: skip
    joint = score.density.joint(draw)
    entropy = sum(torch.distributions.Normal(location[n], log_sd[n].exp()).entropy().flatten(1)
                  .sum(1) for n in draw)  # fmt: skip
    bound = joint.likelihood + joint.prior + entropy
    torch.testing.assert_close(move.objective, bound.detach(), rtol=1e-4, atol=1e-2)
    bound.sum().backward()
    for name, (mean, log) in start.items():
        for new, old, leaf in ((step.location, mean, location), (step.log_sd, log, log_sd)):
            torch.testing.assert_close(new[name] - old, leaf[name].grad, rtol=1e-3, atol=2e-2)


def test_the_scale_of_a_gradient_step_is_the_deviation_of_a_gaussian():
    scene = Scene(GaussianSpeech(stft=STFT), lambda frames: ComplexNormal(0.0, 1e6))
    score = FrameLogDensity(LogDensity(scene, STFT.analyse(waves())))  # all prior: deviation 1
    step = GradientStep(score, RandomStreams(0, 2, CPU), 0.3, noisy=True)
    step.run_steps({site.name: torch.ones(site.shape) for site in score.sites}, 600, burn_in=True)
    assert float(step.scale()["speech.gain"].mean()) == pytest.approx(1.0, abs=0.1)


# --- the routine ---------------------------------------------------------------------------------


def run(e_step, kind="vae", noise=None, mixture=None, **settings):
    settings = {"iterations": 8, "draws": 3, "waveforms": False, **settings}
    scene = scene_of(kind, NMF(2) if noise is None else noise)
    return EM(e_step, **settings)(scene, waves() if mixture is None else mixture, seed=0)


def test_statistics_come_with_the_draws():
    for e_step in ("mala", "mh"):
        posterior = run(e_step, step_size=0.2)
        assert set(posterior.stats) == {"lp", "acceptance_rate"}
        assert all(values.shape == (1, 3, 2) for values in posterior.stats.values())
        np.testing.assert_array_equal(posterior.stats["lp"][0], posterior.trace["log_joint"][-3:])
        rates = posterior.stats["acceptance_rate"]
        assert ((rates >= 0) & (rates <= 1)).all()
    assert run("langevin").stats == run("variational").stats == run("point").stats == {}


def test_lp_is_the_log_joint_of_the_draw():
    posterior = run("mh", noise=known_noise, step_size=0.2)
    density = LogDensity(scene_of("vae", known_noise), STFT.analyse(waves()))
    for i in range(3):
        values = {k: torch.from_numpy(v[0, i]) for k, v in posterior.latents.items()}
        with torch.no_grad():
            joint = density.joint(values)
        lp = posterior.stats["lp"][0, i]
        np.testing.assert_allclose(lp, joint.likelihood + joint.prior, rtol=1e-4)


def test_a_warm_up_is_langevin():
    posterior = run("mh", "rvae", iterations=30, warm_up=20, step_size=0.2)
    langevin = run("langevin", "rvae", iterations=20, step_size=0.4)
    assert posterior.trace["log_joint"].shape == (30, 2)
    np.testing.assert_allclose(
        posterior.trace["log_joint"][:20], langevin.trace["log_joint"], rtol=1e-5
    )


def test_a_warm_up_tells_how_wide_the_posterior_is(monkeypatch):
    import avse_ppl.inference.em.em as em

    scales = []
    monkeypatch.setattr(em, "RandomWalk", lambda scale: scales.append(scale) or RandomWalk(scale))
    run("mh", warm_up=4)
    run("mh")
    assert set(scales[0]) == set(scales[1]) == {"speech.z", "speech.level"}
    assert torch.allclose(scales[1]["speech.level"], torch.tensor(0.3))  # the encoder's guess
    assert not torch.allclose(scales[0]["speech.level"], torch.tensor(0.3), rtol=0.1)


def test_a_warm_up_gets_to_the_posterior_sooner():
    # Gains start 10 dB above where the recording puts them.
    speech = GaussianSpeech(torch.full((33,), 10.0), gain_sd_db=10.0, stft=STFT)
    scene = Scene(speech, lambda frames: ComplexNormal(0.0, 0.01))
    with_, without = (
        EM("mh", iterations=24, warm_up=warm_up, draws=1, step_size=0.05, waveforms=False)(
            scene, waves(), seed=0
        ).trace["log_joint"][-1]
        for warm_up in (20, 0)
    )
    assert (with_ > without + 10).all()


def test_draws_are_kept_after_the_warm_up():
    for iterations, warm_up, draws, kept in ((12, 0, 50, 6), (12, 4, 50, 4), (12, 10, 50, 1)):
        posterior = run("mala", iterations=iterations, warm_up=warm_up, draws=draws)
        assert posterior.latents["speech.z"].shape[1] == kept
        assert posterior.stats["lp"].shape[1] == kept


@pytest.mark.parametrize(
    ("e_step", "warm_up", "text"),
    [
        ("mh", 8, "warm_up must be 0, or below iterations=8"),
        ("mala", 9, "warm_up must be 0, or below iterations=8"),
        ("point", 1, r"with one of \('mala', 'mh'\) as e_step; found 1 with 'point'"),
        ("variational", 2, "found 2 with 'variational'"),
        ("mh", -1, "warm_up must be a whole number of at least 0, not -1"),
        ("mh", 1.5, "warm_up must be a whole number of at least 0"),
    ],
)
def test_a_warm_up_that_makes_no_sense(e_step, warm_up, text):
    with pytest.raises(ValueError, match=text):
        EM(e_step, iterations=8, warm_up=warm_up)


def test_draws_of_the_guide_are_all_of_its_last_state():
    posterior = run("variational", noise=known_noise, iterations=3, draws=200, step_size=1e-6)
    level = posterior.latents["speech.level"][0, :, :, 0, 0]
    # Steps of nothing leave the guide where the encoder put it: 0 +- 0.3.
    assert np.abs(level.mean(0)).max() < 0.1
    np.testing.assert_allclose(level.std(0), 0.3, atol=0.06)


def test_draws_that_hardly_move_are_warned_of():
    settings = {"noise": known_noise, "iterations": 2}
    large = run("mala", "rvae", step_size=1e3, **settings)
    assert len(large.warnings) == 2
    assert all(text.startswith("recording ") for text in large.warnings)
    assert "acceptance rate 0.00, outside 0.1 to 0.95; steps are too large" in large.warnings[0]
    small = run("mh", "vae", step_size=1e-6, **settings)
    assert "acceptance rate 1.00, outside 0.1 to 0.95; steps are too small" in small.warnings[1]
    fine = run("mala", "vae", step_size=0.5, iterations=40, noise=settings["noise"])
    assert fine.warnings == ()


def test_a_prior_without_latents_has_nothing_to_accept():
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), NMF(2))
    posterior = EM("mh", iterations=6, draws=2)(scene, waves(), seed=0)
    assert posterior.stats == {}
    assert posterior.warnings == ()


@pytest.mark.parametrize("e_step", ["mala", "mh"])
def test_a_recording_of_few_frames(e_step):
    mixture = simulate(reference_scene(True, stft=STFT), 64, seed=1).mixture
    posterior = EM(e_step, iterations=6, draws=2)(scene_of("rvae"), mixture, seed=0)
    assert mixture.frames.time < 8
    assert np.isfinite(posterior.mean).all()


# --- going wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("e_step", ["langevin", "point", "variational"])
def test_a_step_that_leaves_the_numbers(e_step):
    text = r"recording 0: the log joint or a latent is not a finite number after "
    with pytest.raises(
        ValueError, match=text + r"iteration \d+ of 8; expected .* Take a step_size below 1e\+06"
    ):
        run(e_step, step_size=1e6)


def interrupting(at):
    def progress(done, total):
        if done == at:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("e_step", ["point", "langevin", "mala", "mh", "variational"])
@pytest.mark.parametrize("at", [2, 6])
def test_what_was_drawn_before_an_interruption_is_kept(e_step, at):
    with pytest.warns(UserWarning, match=f"interrupted after {at} of 8 iterations; the result is"):
        posterior = run(e_step, progress=interrupting(at))
    assert posterior.attrs["interrupted"] is True
    assert posterior.attrs["iterations"] == at
    assert f"recording 1: interrupted after {at} of 8 iterations" in posterior.warnings
    assert all(len(values) == at for values in posterior.trace.values())
    kept = {"point": 1, "variational": 3}.get(e_step, max(1, at - 5))
    assert posterior.latents["speech.z"].shape[1] == kept
    assert np.isfinite(posterior.mean).all()
    assert "interrupted" not in run(e_step).attrs
    name = (
        "elbo" if e_step == "variational" else "log_joint"
    )  # the iterations so far are as they were
    # The iterations so far are as they were.
    np.testing.assert_array_equal(posterior.trace[name], run(e_step).trace[name][:at])


def test_an_interruption_within_an_iteration_keeps_the_last_whole_one(monkeypatch):
    import avse_ppl.inference.em.em as em

    calls, maximise = [], em.maximise_noise

    def later(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return maximise(*arguments)

    monkeypatch.setattr(em, "maximise_noise", later)
    with pytest.warns(UserWarning, match="interrupted after 4 of 8 iterations"):
        cut = run("langevin", step_size=0.4)
    monkeypatch.undo()
    scene = scene_of("vae", NMF(2))
    whole = EM("langevin", iterations=4, step_size=0.4, draws=1, waveforms=False)(
        scene, waves(), seed=0
    )
    np.testing.assert_allclose(cut.latents["speech.z"], whole.latents["speech.z"], rtol=1e-5)


def test_an_interruption_before_the_first_iteration_is_one(monkeypatch):
    import avse_ppl.inference.em.em as em

    def now(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(em, "maximise_noise", now)
    with pytest.raises(KeyboardInterrupt):
        run("mh")
