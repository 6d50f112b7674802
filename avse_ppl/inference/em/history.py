"""History of an EM run: draws, traces, acceptance rates, and warnings."""

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
    """Log of the iterations so far.

    Parameters
    ----------
    planned
        Number of iterations asked for.
    last
        Unconstrained latents after the last complete iteration.
    step
        E-step of that iteration.
    kept
        Latents after the iterations that count as draws.
    objective, acceptance
        Of each iteration, ``(recording,)``; the latter only of those that proposed something.
    ended_early
        How far it came, if the run was cut short.
    """

    planned: int
    last: Values
    step: EStep | None = None
    kept: list[Values] = field(default_factory=list)
    objective: list[Tensor] = field(default_factory=list)
    acceptance: list[Tensor] = field(default_factory=list)
    ended_early: str | None = None

    def add(self, step: EStep, results: list[EStepResult], state: Values, keep: bool) -> None:
        """Log one iteration."""
        self.step, self.last = step, {name: u.clone() for name, u in state.items()}
        if keep:
            self.kept.append(self.last)
        rates = [result.acceptance for result in results if result.acceptance is not None]
        if rates:
            self.acceptance.append(torch.stack(rates).mean(0))
        self.objective.append(results[-1].objective)

    def check_finite(self, step_size: float) -> None:
        """Raise ValueError if the log joint or a latent overflows, as too large steps make it."""
        finite = torch.isfinite(self.objective[-1])
        for value in self.last.values():
            finite = finite & torch.isfinite(value).flatten(1).all(1)
        if bool(finite.all()):
            return
        recording = int((~finite).nonzero()[0])
        raise ValueError(
            f"recording {recording}: the log joint or a latent is not a finite number after "
            f"iteration {len(self.objective)} of {self.planned}; expected finite ones. Take a "
            f"step_size below {step_size:g}, or look for a law of the scene that overflows."
        )

    def end_early(self, error: BaseException) -> None:
        """Note why and where the run ended; an interruption is warned of at once."""
        self.ended_early = (
            f"{str(error) or 'interrupted'} after {len(self.objective)} of {self.planned} "
            "iterations"
        )
        if isinstance(error, KeyboardInterrupt):
            warnings.warn(f"{self.ended_early}; the result is of those", UserWarning, stacklevel=5)

    def trace(self) -> np.ndarray:
        """Objective, ``(iteration, recording)``, nats."""
        return torch.stack(self.objective).cpu().numpy()

    def stats(self, draws: int) -> dict[str, np.ndarray]:
        """Statistics of the draws, ``(chain, draw, recording)``; empty if none was proposed."""
        if not self.kept or len(self.acceptance) < draws:
            return {}
        return {
            "lp": torch.stack(self.objective[-draws:]).cpu().numpy()[None],
            "acceptance_rate": torch.stack(self.acceptance[-draws:]).cpu().numpy()[None],
        }

    def fit_infos(self, recordings: int) -> list[FitInfo]:
        """Warnings of each recording: acceptance rates out of range."""
        texts: list[list[str]] = [[] for _ in range(recordings)]
        stats = self.stats(len(self.kept))
        low, high = _ACCEPTANCE
        for row, rate in enumerate(stats["acceptance_rate"][0].mean(0).tolist() if stats else []):
            if not low <= rate <= high:
                what = "large: most are refused" if rate < low else "small: draws hardly move"
                texts[row].append(
                    f"acceptance rate {rate:.2f}, outside {low} to {high}; steps are too {what}. "
                    "Take more iterations, in which steps adapt, or a warm_up."
                )
        return [FitInfo(warnings=tuple(row)) for row in texts]
