"""Blocked Metropolis-Hastings updates of the speech latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.blocks import BlockSchedule
from avse_ppl.inference.em.e_steps import EStepResult
from avse_ppl.inference.em.frame_density import FrameLogDensity, FrameLogProb
from avse_ppl.inference.em.proposals import Proposal

_LAZY = 0.8  # largest acceptance probability of a block where blocks depend on each other


class LatentState(NamedTuple):
    """Speech latents on the real line, and their log joint."""

    at: Values
    log_prob: FrameLogProb


class Metropolis:
    r"""Metropolis-Hastings steps of the speech latents, block by block.

    The recording is cut into blocks w. A step proposes p for the active frames of x and draws the
    set A of blocks that follow it, each with probability :math:`a(r_w)` where
    :math:`r_w(x, p)` is the log Metropolis-Hastings ratio of the block's frames for the step from x
    to p. Where blocks are independent given the proposal, ``a(r) = min(1, e^r)`` is all. Where they
    are not, exchanging x and p in A gives y and q; doing it again leads back; and the whole is
    accepted with probability

    .. math:: \min\left(1, \frac{p(y)}{p(x)} \prod_{w \in A} \frac{a(r_w(y, q))}{a(r_w(x, p))}
        \prod_{w \notin A} \frac{1 - a(r_w(y, q))}{1 - a(r_w(x, p))} \right)

    which leaves the posterior invariant whatever the receptive field; the weaker the blocks depend
    on each other, the closer the ratio is to 1. There ``a(r) = 0.8 min(1, e^r)``, so that no factor
    is 0.

    Parameters
    ----------
    log_density
        Log joint of the speech latents.
    schedules
        Blocks of the steps, one after the other, cyclically.
    proposal
        Proposal distribution; a symmetric one if blocks are not independent.
    streams
        A stream of random numbers for each recording.
    step_size
        Initial step sizes, one for each frame and each latent without a time. They are adapted
        during burn-in.
    target
        Acceptance rate that they are adapted to.

    References
    ----------
    Tierney, "A note on Metropolis-Hastings kernels for general state spaces", Annals of Applied
    Probability 1998 (steps that undo themselves). Christen and Fox, "Markov chain Monte Carlo
    using an approximation", Journal of Computational and Graphical Statistics 2005 (delayed
    acceptance). Andrieu and Thoms, "A tutorial on adaptive MCMC", Statistics and Computing 2008.
    """

    def __init__(
        self,
        log_density: FrameLogDensity,
        schedules: list[BlockSchedule],
        proposal: Proposal,
        streams: RandomStreams,
        *,
        step_size: float,
        target: float,
    ) -> None:
        """Start with equal step sizes."""
        self.log_density, self.schedules = log_density, schedules
        self.proposal, self.streams = proposal, streams
        self.target, self.step = target, 0
        self.framed = {site.name: log_density.per_frame(site) for site in log_density.sites}
        self.sizes = {}
        for site in log_density.sites:
            shape = (site.shape[0], 1, site.shape[-1] if self.framed[site.name] else 1)
            self.sizes[site.name] = site.start.new_full(shape, step_size)

    def run_steps(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; each result is of the state after the step."""
        noise = self.log_density.noise_of(state)
        current = self.evaluate(self.log_density.speech_of(state), noise)
        if not self.schedules:  # speech has no latents
            found = current.log_prob
            return [EStepResult(found.total, found.power, residual=found.residual)] * count
        results = []
        for _ in range(count):
            schedule = self.schedules[self.step % len(self.schedules)]
            current, rate = self.take_step(current, noise, schedule, burn_in)
            self.step += 1
            found = current.log_prob
            results.append(EStepResult(found.total, found.power, rate, found.residual))
        state.update(current.at)
        return results

    def evaluate(self, at: Values, noise: Values) -> LatentState:
        """Log joint, with gradients if the proposal follows them."""
        return LatentState(at, self.log_density(at, noise, self.proposal.gradients))

    def take_step(
        self, x: LatentState, noise: Values, schedule: BlockSchedule, burn_in: bool
    ) -> tuple[LatentState, Tensor]:
        """One step, and the mean acceptance probability of its proposals, ``(recording,)``."""
        needed = [name for name, framed in self.framed.items() if framed or schedule.shared]
        if self.proposal.gradients and not all(name in x.log_prob.gradients for name in needed):
            x = self.evaluate(x.at, noise)
        if burn_in:
            self.proposal.learn(x.log_prob)
        sizes = {name: size * self.active(name, schedule) for name, size in self.sizes.items()}
        unit = {name: self.streams.normal(u.shape, u.dtype) for name, u in x.at.items()}
        p = self.evaluate(self.proposal.draw(x.at, x.log_prob, sizes, unit), noise)
        log_ratio = self.log_target_ratio(schedule, x, p)
        log_ratio = log_ratio + self.log_proposal_ratio(schedule, x, p, sizes)
        probability = acceptance_probability(log_ratio, schedule)
        accepted = self.uniform(probability) < probability
        if schedule.blocks_independent:
            y, rate = self.accept_blocks(accepted, schedule, p, x), probability
        else:
            y, kept = self.delayed_acceptance(accepted, probability, schedule, x, p, noise)
            rate = probability * kept[:, None]
        if burn_in:
            # Robbins-Monro steps of the log step sizes towards the target acceptance rate.
            chance = probability if schedule.blocks_independent else probability / _LAZY
            gain = (1 + self.step // len(self.schedules)) ** -0.5
            for name, size in self.sizes.items():
                excess = self.expand_blocks(chance, schedule, name) - self.target
                self.sizes[name] = size * torch.exp(gain * self.active(name, schedule) * excess)
        return y, schedule.mean(rate)

    def accept_blocks(
        self, accepted: Tensor, schedule: BlockSchedule, p: LatentState, x: LatentState
    ) -> LatentState:
        """State and log joint after each independent block was accepted or not."""
        frames = accepted[:, schedule.blocks]
        rest = x.log_prob.rest
        if schedule.shared:
            rest = torch.where(accepted[:, 0], p.log_prob.rest, rest)
        gradients = self.exchange(accepted, schedule, p.log_prob.gradients, x.log_prob.gradients)
        if not schedule.shared:  # those of what all frames share depend on all that was accepted
            gradients = {name: g for name, g in gradients.items() if self.framed[name]}
        log_prob = FrameLogProb(
            torch.where(frames, p.log_prob.frames, x.log_prob.frames), rest,
            torch.where(frames[:, None], p.log_prob.power, x.log_prob.power), gradients,
            choose_residual(frames[:, None], p.log_prob, x.log_prob),
        )  # fmt: skip
        return LatentState(self.exchange(accepted, schedule, p.at, x.at), log_prob)

    def delayed_acceptance(
        self,
        accepted: Tensor,
        probability: Tensor,
        schedule: BlockSchedule,
        x: LatentState,
        p: LatentState,
        noise: Values,
    ) -> tuple[LatentState, Tensor]:
        """Accept the chosen blocks as a whole or stay at x, and the probability of the former."""
        y = self.evaluate(self.exchange(accepted, schedule, p.at, x.at), noise)
        q = self.evaluate(self.exchange(accepted, schedule, x.at, p.at), noise)
        back = acceptance_probability(self.log_target_ratio(schedule, y, q), schedule)
        choices = torch.where(accepted, back / probability, (1 - back) / (1 - probability))
        rise = (y.log_prob.frames - x.log_prob.frames).sum(1)
        rise = rise + (y.log_prob.rest - x.log_prob.rest)
        kept = (rise + choices.log().sum(1)).clamp(max=0.0).exp().nan_to_num(0.0)
        whole = self.uniform(kept[:, None]) < kept[:, None]  # (recording, 1)
        at = {name: torch.where(whole[:, None], y.at[name], u) for name, u in x.at.items()}
        log_prob = FrameLogProb(
            torch.where(whole, y.log_prob.frames, x.log_prob.frames),
            torch.where(whole[:, 0], y.log_prob.rest, x.log_prob.rest),
            torch.where(whole[:, None], y.log_prob.power, x.log_prob.power), {},
            choose_residual(whole[:, None], y.log_prob, x.log_prob),
        )  # fmt: skip
        return LatentState(at, log_prob), kept

    def log_target_ratio(self, schedule: BlockSchedule, x: LatentState, p: LatentState) -> Tensor:
        """Change of the log joint of each block from x to p, ``(recording, block)``."""
        change = schedule.sum(p.log_prob.frames - x.log_prob.frames)
        if schedule.count == 1:
            change = change + (p.log_prob.rest - x.log_prob.rest)[:, None]
        return change

    def log_proposal_ratio(
        self, schedule: BlockSchedule, x: LatentState, p: LatentState, sizes: Values
    ) -> Tensor:
        """Log density of proposing x from p over that of p from x, ``(recording, block)``."""
        forward = self.proposal.log_density(p.at, x.at, x.log_prob, sizes)
        backward = self.proposal.log_density(x.at, p.at, p.log_prob, sizes)
        total = x.log_prob.rest.new_zeros(len(x.log_prob.rest), schedule.count)
        for name, log_density in forward.items():
            gap = (backward[name] - log_density).sum(1)
            if self.framed[name]:
                total = total + schedule.sum(gap)
            elif schedule.shared:
                total = total + gap.sum(1, keepdim=True)
        return total

    def active(self, name: str, schedule: BlockSchedule) -> Tensor | float:
        """1 where a latent changes, 0 elsewhere."""
        if self.framed[name]:
            return schedule.active.to(self.sizes[name].dtype)
        return float(schedule.shared)

    def expand_blocks(self, blocks: Tensor, schedule: BlockSchedule, name: str) -> Tensor:
        """Expand ``(recording, block)`` over the entries of a latent."""
        return blocks[:, schedule.blocks][:, None] if self.framed[name] else blocks[:, :1, None]

    def exchange(
        self, accepted: Tensor, schedule: BlockSchedule, proposed: Values, current: Values
    ) -> Values:
        """Values of the accepted blocks, and the current ones elsewhere."""
        return {
            name: torch.where(self.expand_blocks(accepted, schedule, name), proposed[name], u)
            if self.framed[name] or schedule.shared else u
            for name, u in current.items()
        }  # fmt: skip

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform random numbers, ``(recording, ...)``."""
        options = {"dtype": like.dtype, "device": like.device}
        rows = [torch.rand(like.shape[1:], generator=g, **options) for g in self.streams.generators]
        return torch.stack(rows)


def choose_residual(accepted: Tensor, new: FrameLogProb, old: FrameLogProb) -> Tensor | None:
    """Residual of the mixture where a proposal was accepted, and the old one elsewhere."""
    if new.residual is None or old.residual is None:
        return None
    return torch.where(accepted, new.residual, old.residual)


def acceptance_probability(log_ratio: Tensor, schedule: BlockSchedule) -> Tensor:
    """Probability that a block is accepted; what is not a number is refused."""
    probability = log_ratio.clamp(max=0.0).exp().nan_to_num(0.0)
    return probability if schedule.blocks_independent else _LAZY * probability
