"""What the rounds of EM leave behind: draws, traces, statistics, and what went wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.em.e_steps import EStep, EStepResult
from avse_ppl.posterior.fit_info import FitInfo

_ACCEPTANCE = (0.1, 0.95)  # outside, the draws hardly move


@dataclass
class EMHistory:
    """Log of the rounds so far.

    Parameters
    ----------
    planned
        How many there are to be.
    last
        Unconstrained latents after the last whole round.
    step
        E-step of that round.
    kept
        Latents after the rounds that count as draws.
    objective, acceptance
        Of each round, ``(recording,)``; the latter only of rounds that proposed something.
    interrupted
        Whether the rounds were cut short.
    """

    planned: int
    last: Values
    step: EStep | None = None
    kept: list[Values] = field(default_factory=list)
    objective: list[Tensor] = field(default_factory=list)
    acceptance: list[Tensor] = field(default_factory=list)
    interrupted: bool = False

    def add(self, step: EStep, moves: list[EStepResult], state: Values, keep: bool) -> None:
        """Note one round."""
        self.step, self.last = step, {name: u.clone() for name, u in state.items()}
        if keep:
            self.kept.append(self.last)
        rates = [move.acceptance for move in moves if move.acceptance is not None]
        if rates:
            self.acceptance.append(torch.stack(rates).mean(0))
        self.objective.append(moves[-1].objective)

    def check_finite(self, step_size: float) -> None:
        """Raise ValueError if a recording has left the numbers, as too large steps make it."""
        finite = torch.isfinite(self.objective[-1])
        for value in self.last.values():
            finite = finite & torch.isfinite(value).flatten(1).all(1)
        if bool(finite.all()):
            return
        recording = int((~finite).nonzero()[0])
        raise ValueError(
            f"recording {recording}: the log joint or a latent is not a finite number after round "
            f"{len(self.objective)} of {self.planned}; expected finite ones. Take a step_size "
            f"below {step_size:g}, or look for a law of the scene that overflows."
        )

    def trace(self) -> np.ndarray:
        """Objective, ``(round, recording)``, nats."""
        return _rows(self.objective)

    def stats(self, draws: int) -> dict[str, np.ndarray]:
        """Statistics of the draws, ``(chain, draw, recording)``; empty if none was proposed."""
        if not self.kept or len(self.acceptance) < draws:
            return {}
        return {
            "lp": _rows(self.objective[-draws:])[None],
            "acceptance_rate": _rows(self.acceptance[-draws:])[None],
        }

    def facts(self, recordings: int) -> list[FitInfo]:
        """Warnings of each recording."""
        rows = [_on_acceptance(rate) for rate in self._rates(recordings)]
        if self.interrupted:
            text = f"interrupted after {len(self.objective)} of {self.planned} rounds"
            warnings.warn(f"{text}; the result is of those", UserWarning, stacklevel=5)
            rows = [[*row, text] for row in rows]
        return [FitInfo(warnings=tuple(row)) for row in rows]

    def _rates(self, recordings: int) -> list[float | None]:
        """Mean acceptance of the draws, by recording."""
        stats = self.stats(len(self.kept))
        if not stats:
            return [None] * recordings
        return stats["acceptance_rate"][0].mean(0).tolist()


def _on_acceptance(rate: float | None) -> list[str]:
    low, high = _ACCEPTANCE
    if rate is None or low <= rate <= high:
        return []
    what = "too large: most are refused" if rate < low else "too small: draws hardly move"
    return [
        f"acceptance rate {rate:.2f}, outside {low} to {high}; steps are {what}. Take more rounds, "
        "in which steps adapt, or a warm_up."
    ]


def _rows(rows: list[Tensor]) -> np.ndarray:
    return torch.stack(rows).cpu().numpy()
