"""Delayed acceptance of Metropolis blocks that depend on each other, by its balance, exactly."""

from __future__ import annotations

import pytest
import torch

from avse_ppl import LatentSpeech, Scene
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import striped_blocks
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.metropolis import Metropolis, acceptance_probability
from avse_ppl.inference.em.proposals import RandomWalk
from tests.helpers import CPU, STFT, known_noise, make_network, waves

SCHEDULES = striped_blocks(STFT.count_frames(320), 4, False, CPU)


def make_walk(kind):
    """Random-walk Metropolis steps of a prior whose frames are coupled, and a state."""
    scene = Scene(LatentSpeech(make_network(kind), stft=STFT, name=kind), known_noise)
    log_density = FrameLogDensity(LogDensity(scene, STFT.analyse(waves())))
    state = {site.name: 0.5 * torch.randn(site.shape) for site in log_density.sites}
    proposal = RandomWalk({name: torch.ones_like(u) for name, u in state.items()})
    streams = RandomStreams(0, 2, CPU)
    walk = Metropolis(log_density, SCHEDULES, proposal, streams, step_size=1.5, target=0.4)
    return walk, state


class Exchange:
    """Blocks of x that a proposal p may replace, and those of y that q then may: the way back."""

    def __init__(self, walk, state, schedule):
        self.walk, self.schedule = walk, schedule
        self.x = walk.evaluate(state, {})
        unit = {name: torch.randn(u.shape) for name, u in state.items()}
        sizes = {name: size * walk.active(name, schedule) for name, size in walk.sizes.items()}
        self.p = walk.evaluate(walk.proposal.draw(state, self.x.log_prob, sizes, unit), {})
        self.follow = torch.rand(len(self.x.log_prob.rest), schedule.count) < 0.5
        self.y, self.q = (
            walk.evaluate(walk.exchange(self.follow, schedule, one.at, other.at), {})
            for one, other in ((self.p, self.x), (self.x, self.p))
        )

    def accept(self, start, proposed):
        """Log probability that those blocks follow, the state then, and its probability."""
        log_ratio = self.walk.log_target_ratio(self.schedule, start, proposed)
        chance = acceptance_probability(log_ratio, self.schedule)
        drawn = torch.where(self.follow, chance, 1 - chance).log().sum(1)
        return drawn, *self.walk.delayed_acceptance(
            self.follow, chance, self.schedule, start, proposed, {}
        )


@pytest.mark.parametrize("kind", ["rvae", "tcvae"])
def test_delayed_acceptance_keeps_detailed_balance(kind):
    # From y, proposing q, the same blocks A lead back to x, and as likely: for each A
    # p(x) P(A | x, p) k(x, p, A) = p(y) P(A | y, q) k(y, q, A). The walk itself is symmetric.
    walk, state = make_walk(kind)
    pairs = []
    for schedule in SCHEDULES * 3:
        one = Exchange(walk, state, schedule)
        drawn_there, _, there = one.accept(one.x, one.p)
        drawn_back, _, back = one.accept(one.y, one.q)
        torch.testing.assert_close(
            one.x.log_prob.total + drawn_there + there.log(),
            one.y.log_prob.total + drawn_back + back.log(),
            rtol=1e-5, atol=1e-3,
        )  # fmt: skip
        pairs.append(torch.stack((there, back)))
        state = one.y.at
    both = torch.cat(pairs, 1)
    torch.testing.assert_close(both.amax(0), torch.ones(both.shape[1]))  # never less than it may be
    assert (both < 0.95).any(1).all()  # so that the lines above can fail, on either way


def test_delayed_acceptance_moves_as_often_as_it_says(monkeypatch):
    walk, state = make_walk("rvae")
    one = Exchange(walk, state, SCHEDULES[0])
    _, _, kept = one.accept(one.x, one.p)
    for factor, where in ((0.99, one.y), (1.01, one.x)):
        monkeypatch.setattr(walk, "uniform", lambda like, factor=factor: factor * kept[:, None])
        _, found, _ = one.accept(one.x, one.p)
        assert torch.equal(found.at["speech.z"], where.at["speech.z"])
        torch.testing.assert_close(found.log_prob.total, where.log_prob.total)
