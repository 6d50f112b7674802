"""Metropolis moves of the speech latents, accepted together where the prior couples frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Site, Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import BlockSchedule
from avse_ppl.inference.em.e_steps import EStepResult
from avse_ppl.inference.em.frame_density import FrameLogDensity, FrameLogProb
from avse_ppl.inference.em.proposals import Proposal

_LAZY = 0.8  # most probable acceptance of a window where windows reach into each other


class _Point(NamedTuple):
    """Speech latents on the real line, and their score."""

    at: Values
    score: FrameLogProb


class Metropolis:
    r"""Moves the speech latents by proposals that are accepted or refused.

    The recording is cut into windows w. A move proposes p for the frames of x that are to move and
    draws the set A of windows that follow it, each with probability :math:`a(r_w)` where
    :math:`r_w(x, p)` is the log Metropolis ratio of the window's frames for the step from x to p.
    Where windows do not reach into each other, ``a(r) = min(1, e^r)`` is all. Where they do,
    exchanging x and p in A gives y and q; doing it again leads back; and the whole is accepted
    with probability

    .. math:: \min\left(1, \frac{p(y)}{p(x)} \prod_{w \in A} \frac{a(r_w(y, q))}{a(r_w(x, p))}
        \prod_{w \notin A} \frac{1 - a(r_w(y, q))}{1 - a(r_w(x, p))} \right)

    which leaves the posterior invariant whatever the reach; the less windows reach into each
    other, the closer the ratio is to 1. There ``a(r) = 0.8 min(1, e^r)``, so that no factor is 0.

    Parameters
    ----------
    score
        Log joint of the speech latents.
    plans
        What moves, one plan after the other, round and round.
    proposal
        Where to; a symmetric one if windows reach into each other.
    randoms
        One generator a recording.
    step_size
        Where the step sizes start, one for each frame and each latent without a time. While the
        draws do not count, they are adapted.
    target
        Acceptance rate that they are adapted to.

    References
    ----------
    Tierney, "A note on Metropolis-Hastings kernels for general state spaces", Annals of Applied
    Probability 1998 (steps that undo themselves). Christen and Fox, "Markov chain Monte Carlo
    using an approximation", Journal of Computational and Graphical Statistics 2005 (a second
    decision that makes up for the first). Andrieu and Thoms, "A tutorial on adaptive MCMC",
    Statistics and Computing 2008.
    """

    def __init__(
        self,
        score: FrameLogDensity,
        plans: list[BlockSchedule],
        proposal: Proposal,
        randoms: RandomStreams,
        *,
        step_size: float,
        target: float,
    ) -> None:
        """Keep the parts."""
        self.score, self.plans, self.proposal, self.randoms = score, plans, proposal, randoms
        self.target, self.step = target, 0
        self.framed = {site.name: score.per_frame(site) for site in score.sites}
        self.sizes = {site.name: self._size(site, step_size) for site in score.sites}

    def moves(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; the moves tell of the state after each."""
        noise = self.score.noise_of(state)
        here = self._point(self.score.speech_of(state), noise)
        if not self.plans:  # speech has no latents
            return [EStepResult(here.score.total, here.score.power)] * count
        moves = []
        for _ in range(count):
            plan = self.plans[self.step % len(self.plans)]
            here, rate = self._move(here, noise, plan, burn_in)
            self.step += 1
            moves.append(EStepResult(here.score.total, here.score.power, rate))
        state.update(here.at)
        return moves

    def _size(self, site: Site, step_size: float) -> Tensor:
        recordings, *_, last = site.shape
        return site.start.new_full(
            (recordings, 1, last if self.framed[site.name] else 1), step_size
        )

    def _point(self, at: Values, noise: Values) -> _Point:
        return _Point(at, self.score(at, noise, self.proposal.gradients))

    def _move(
        self, x: _Point, noise: Values, plan: BlockSchedule, burn_in: bool
    ) -> tuple[_Point, Tensor]:
        """One move, and the mean probability that what it proposed was accepted."""
        if self.proposal.gradients and not self._knows_slopes(x, plan):
            x = self._point(x.at, noise)
        if burn_in:
            self.proposal.learn(x.score)
        sizes = {name: size * self._moving(name, plan) for name, size in self.sizes.items()}
        unit = {name: self.randoms.normal(u.shape, u.dtype) for name, u in x.at.items()}
        p = self._point(self.proposal.draw(x.at, x.score, sizes, unit), noise)
        chance = _chance(self._ratio(plan, x, p) + self._ways(plan, x, p, sizes), plan)
        taken = self._uniform(chance) < chance
        if plan.certain:
            y, rate = self._exchanged(taken, plan, p, x), chance
        else:
            y, kept = self._second_decision(taken, chance, plan, x, p, noise)
            rate = chance * kept[:, None]
        if burn_in:
            self._adapt(plan, chance if plan.certain else chance / _LAZY)
        return y, plan.mean(rate)

    def _second_decision(
        self,
        taken: Tensor,
        chance: Tensor,
        plan: BlockSchedule,
        x: _Point,
        p: _Point,
        noise: Values,
    ) -> tuple[_Point, Tensor]:
        """Accept the windows taken or stay at x, and the probability of the former."""
        y = self._point(self._where(taken, plan, p.at, x.at), noise)
        q = self._point(self._where(taken, plan, x.at, p.at), noise)
        back = _chance(self._ratio(plan, y, q), plan)
        choices = torch.where(taken, back / chance, (1 - back) / (1 - chance)).log().sum(1)
        rise = (y.score.frames - x.score.frames).sum(1) + (y.score.rest - x.score.rest)
        kept = (rise + choices).clamp(max=0.0).exp().nan_to_num(0.0)
        whole = self._uniform(kept[:, None]) < kept[:, None]  # (recording, 1)
        at = {name: torch.where(whole[:, None], y.at[name], u) for name, u in x.at.items()}
        score = FrameLogProb(
            torch.where(whole, y.score.frames, x.score.frames),
            torch.where(whole[:, 0], y.score.rest, x.score.rest),
            torch.where(whole[:, None], y.score.power, x.score.power), {},
        )  # fmt: skip
        return _Point(at, score), kept

    def _ratio(self, plan: BlockSchedule, x: _Point, p: _Point) -> Tensor:
        """What the step from x to p changes in the log joint of each window."""
        change = plan.sum(p.score.frames - x.score.frames)
        return change + (p.score.rest - x.score.rest)[:, None] if plan.count == 1 else change

    def _ways(self, plan: BlockSchedule, x: _Point, p: _Point, sizes: Values) -> Tensor:
        """Log density of the way back over that of the way there, by window."""
        there = self.proposal.log_density(p.at, x.at, x.score, sizes)
        back = self.proposal.log_density(x.at, p.at, p.score, sizes)
        total = x.score.rest.new_zeros(len(x.score.rest), plan.count)
        for name, way in there.items():
            gap = (back[name] - way).sum(1)
            if self.framed[name]:
                total = total + plan.sum(gap)
            elif plan.shared:
                total = total + gap.sum(1, keepdim=True)
        return total

    def _moving(self, name: str, plan: BlockSchedule) -> Tensor | float:
        """1 where a latent moves, 0 elsewhere."""
        if self.framed[name]:
            return plan.active.to(self.sizes[name].dtype)
        return float(plan.shared)

    def _by_entry(self, windows: Tensor, plan: BlockSchedule, name: str) -> Tensor:
        """``(recording, window)`` laid out over the entries of a latent."""
        return windows[:, plan.windows][:, None] if self.framed[name] else windows[:, :1, None]

    def _where(self, taken: Tensor, plan: BlockSchedule, there: Values, here: Values) -> Values:
        """Choose window by window; what has no time moves with a plan that moves it."""
        return {
            name: torch.where(self._by_entry(taken, plan, name), there[name], u)
            if self.framed[name] or plan.shared else u
            for name, u in here.items()
        }  # fmt: skip

    def _exchanged(self, taken: Tensor, plan: BlockSchedule, p: _Point, x: _Point) -> _Point:
        """Point and score after windows that do not reach into each other were chosen."""
        frames = taken[:, plan.windows]
        rest = torch.where(taken[:, 0], p.score.rest, x.score.rest) if plan.shared else x.score.rest
        slopes = self._where(taken, plan, p.score.gradients, x.score.gradients)
        if not plan.shared:  # those of what all frames share would need all that was chosen
            slopes = {name: slope for name, slope in slopes.items() if self.framed[name]}
        score = FrameLogProb(
            torch.where(frames, p.score.frames, x.score.frames), rest,
            torch.where(frames[:, None], p.score.power, x.score.power), slopes,
        )  # fmt: skip
        return _Point(self._where(taken, plan, p.at, x.at), score)

    def _knows_slopes(self, x: _Point, plan: BlockSchedule) -> bool:
        moving = [name for name, framed in self.framed.items() if framed or plan.shared]
        return all(name in x.score.gradients for name in moving)

    def _uniform(self, like: Tensor) -> Tensor:
        options = {"dtype": like.dtype, "device": like.device}
        rows = [torch.rand(like.shape[1:], generator=g, **options) for g in self.randoms.generators]
        return torch.stack(rows)

    def _adapt(self, plan: BlockSchedule, chance: Tensor) -> None:
        """Robbins-Monro steps of the log step sizes towards the target acceptance."""
        gain = (1 + self.step // len(self.plans)) ** -0.5
        for name, size in self.sizes.items():
            excess = self._by_entry(chance, plan, name) - self.target
            self.sizes[name] = size * torch.exp(gain * self._moving(name, plan) * excess)


def _chance(ratio: Tensor, plan: BlockSchedule) -> Tensor:
    """Probability that a window follows; what is not a number is refused."""
    chance = ratio.clamp(max=0.0).exp().nan_to_num(0.0)
    return chance if plan.certain else _LAZY * chance
