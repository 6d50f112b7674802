r"""Markov switch of the lips: a two-state chain, summed out exactly.

.. math:: a_t \in \{0, 1\}, \quad P(a_t = 1) = r_t, \qquad
    p(z_{1:T}) = \sum_{a_{1:T}} p(a_{1:T}) \prod_t p(z_t | z_{1:t-1}, a_t)

with r the score of the lips. Between frames the switch changes as rarely as its scores allow, by
the maximal coupling of :math:`a_{t-1}` and :math:`a_t`, except that with probability
:math:`1 - \rho` it is drawn anew:

.. math:: P(a_t = 1 | a_{t-1}) = \rho\, C_t(a_{t-1}) + (1 - \rho)\, r_t, \qquad
    C_t(1) = \min(1, r_t / r_{t-1}), \quad
    C_t(0) = \max(0, r_t - r_{t-1}) / (1 - r_{t-1})

so that its probability is the score in every frame, a score that falls is followed at once, and
neighbouring frames are not counted as separate evidence.

The sum over all switches is a product of 2x2 matrices, taken in parallel over time: log2(T) steps.

References
----------
Saerkkae and Garcia-Fernandez, "Temporal parallelization of Bayesian smoothers", IEEE Transactions
on Automatic Control, 2021. Rabiner, "A tutorial on hidden Markov models", 1989.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avse_ppl.models.visual.gate import Switch

TINY = 1e-30  # what stands for a probability of 0: its logarithm is a number


def transitions(switch: Switch) -> Tensor:
    """Logarithms of ``P(a_t = j | a_t-1 = i)``, ``(recording, time, i, j)``.

    In the first frame both rows are the score.

    Examples
    --------
    >>> steps = transitions(Switch(torch.tensor([[0.8, 0.4]]), 0.5)).exp()
    >>> [round(float(p), 3) for p in steps[0, 1, :, 1]]  # from 0: drawn anew; from 1: falls or anew
    [0.2, 0.45]
    """
    score = switch.score.clamp(0.0, 1.0)
    before = torch.cat((score[:, :1], score[:, :-1]), 1)
    from_one = torch.where(score < before, score / before.clamp(min=TINY), torch.ones_like(score))
    from_zero = (score - before).clamp(min=0.0) / (1.0 - before).clamp(min=TINY)
    kept = torch.stack((from_zero, from_one), -1).clamp(0.0, 1.0)
    rho = torch.full_like(score, switch.persistence)
    rho[:, 0] = 0.0
    on = rho[..., None] * kept + (1.0 - rho[..., None]) * score[..., None]
    return torch.stack((1.0 - on, on), -1).clamp(min=TINY).log()


def evidence(branches: Tensor, switch: Switch) -> Tensor:
    r"""Log density of each frame given those before it, ``(row, time)``, the switches summed out.

    Parameters
    ----------
    branches
        :math:`\log p(z_t | z_{1:t-1}, a_t)`, ``(row, time, 2)``; the rows are recordings, or
        several draws of all of them, one draw after the other.
    switch
        Of the recordings.
    """
    total = forward_filter(branches, switch).logsumexp(-1)
    return torch.diff(total, dim=-1, prepend=torch.zeros_like(total[:, :1]))


def probability(branches: Tensor, switch: Switch) -> Tensor:
    r"""``P(a_t = 1 | z)``, ``(row, time)``.

    As the gradient of the log evidence in the log densities of the one branch, which is that.
    """
    leaf = branches.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(evidence(leaf, switch).sum(), leaf)
    return gradient[..., 1].clamp(0.0, 1.0)


def draw_switch(branches: Tensor, switch: Switch, uniform: Tensor) -> Tensor:
    """Sample all switches given the latents, ``(row, time)`` of 0 and 1: filter, then backwards.

    Parameters
    ----------
    branches, switch
        As for `evidence`.
    uniform
        ``(row, time)``, uniform in [0, 1).
    """
    forward = forward_filter(branches, switch)
    steps = repeat_rows(transitions(switch), len(branches))
    state, states = torch.zeros(len(branches), dtype=torch.long, device=branches.device), []
    rows = torch.arange(len(branches), device=branches.device)
    for t in range(branches.shape[1] - 1, -1, -1):
        last = t == branches.shape[1] - 1
        log = forward[:, t] if last else forward[:, t] + steps[rows, t + 1, :, state]
        state = (uniform[:, t] < torch.sigmoid(log[:, 1] - log[:, 0])).long()
        states.append(state)
    return torch.stack(states[::-1], 1)


def draw_prior(switch: Switch) -> Tensor:
    """Sample the switches from their prior, ``(recording, time)``."""
    flat = torch.zeros(*switch.score.shape, 2, dtype=switch.score.dtype, device=switch.score.device)
    return draw_switch(flat, switch, torch.rand_like(switch.score)).to(switch.score.dtype)


def forward_filter(branches: Tensor, switch: Switch) -> Tensor:
    """``log p(z_1:t, a_t)``, ``(row, time, 2)``."""
    steps = repeat_rows(transitions(switch), len(branches)) + branches[..., None, :]
    stride = 1
    while stride < steps.shape[1]:
        joined = compose_transitions(steps[:, :-stride], steps[:, stride:])
        steps = torch.cat((steps[:, :stride], joined), 1)
        stride *= 2
    return steps[..., 0, :]  # the first frame's rows are alike


def compose_transitions(first: Tensor, second: Tensor) -> Tensor:
    """Product of 2x2 matrices of logarithms."""
    off, on = (first[..., :, i, None] + second[..., None, i, :] for i in (0, 1))
    return torch.logaddexp(off, on)


def repeat_rows(values: Tensor, rows: int) -> Tensor:
    """Rows of the recordings for several draws of all recordings."""
    return values if len(values) == rows else values.repeat(rows // len(values), 1, 1, 1)
