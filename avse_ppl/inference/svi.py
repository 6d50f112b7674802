"""Stochastic variational inference."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.checks import check_count, check_positive
from avse_ppl.inference.density import Density, Values
from avse_ppl.inference.setup import Mixture, Randoms, Seed, check_seed, prepare
from avse_ppl.inference.start import requires_grad, warm_start
from avse_ppl.inference.summary import kind_of, summarise
from avse_ppl.inference.threads import enough_threads
from avse_ppl.posterior import Posterior
from avse_ppl.scene import Scene
from avse_ppl.stft import Spectrogram

_WINDOW = 25  # steps between looks at convergence


@dataclass(frozen=True)
class SVI:
    r"""Mean-field variational inference over all latents, many recordings at once.

    .. math:: \max_{m, s} \; E_{u \sim N(m, s^2)}[w \log p(x | u) + \log p(u)] + H[N(m, s^2)]

    on the real line, by Adam on reparametrised draws. Starts from the prior's encoder; stops when
    the evidence lower bound (ELBO) of every recording has stopped rising.

    What it approximates: the guide has no correlations, so variances come out too small where the
    posterior has them.

    Parameters
    ----------
    steps
        At most this many gradient steps.
    learning_rate
        Adam's; it falls to a tenth over the last third of the steps.
    draws
        Draws of the fitted guide, and waveforms, in the posterior.
    waveforms
        Whether to draw waveforms too: needed for intervals, left out for speed.
    moment_draws
        Over how many of the draws mean and variance are taken, None for all. Each costs half of
        what a step does.
    tempering
        Power w of the likelihood; anything but 1 is flagged in ``posterior.kind``. STFT frames
        overlap, so each sample is counted ``n_fft / hop`` times; ``w = hop / n_fft`` undoes that
        (a composite likelihood).
    tolerance
        Stop when the ELBO rises by less than this fraction of the likelihood's size over 25 steps.
        0 never stops early.
    device, dtype
        ``"cpu"``, ``"cuda"`` or ``"auto"``, and ``torch.float32`` or ``float64``.
    progress
        Called with (step, steps) after each step.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Hoffman, Blei, Wang and Paisley, "Stochastic variational inference", JMLR 2013. Kucukelbir et
    al., "Automatic differentiation variational inference", JMLR 2017. Varin, Reid and Firth, "An
    overview of composite likelihood methods", Statistica Sinica 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = SVI(steps=10, draws=5)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> posterior.kind, posterior.speech.shape
    ('variational', (1, 5, 1, 4000))
    """

    steps: int = 200
    learning_rate: float = 0.05
    draws: int = 50
    waveforms: bool = True
    moment_draws: int | None = None
    tempering: float = 1.0
    tolerance: float = 1e-4
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        if self.moment_draws is not None:
            check_count("moment_draws", self.moment_draws)
        check_positive("learning_rate", self.learning_rate)
        check_positive("tempering", self.tempering)
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, not {self.tolerance!r}")

    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Invert a scene.

        Parameters
        ----------
        scene
            Speech prior and noise model.
        mixture
            Waveform(s) at the prior's rate, an ``Audio``, a path, bytes, or a ``Spectrogram``.
        video
            Only with audio-visual priors.
        seed
            Of everything random: a whole number, or one for each recording.

        Returns
        -------
        Posterior
            With ``trace["elbo"]``, nats, ``(step, recording)``.
        """
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        with enough_threads(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: Randoms, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        density = Density(scene, spectrogram)
        location, log_sd = warm_start(density, randoms)
        trace, converged = self._fit(density, location, log_sd, randoms)
        draws = [self._values(density, location, log_sd, randoms) for _ in range(self.draws)]
        attrs = {
            "routine": "svi", "seed": seed, "steps": len(trace),
            "tempering": self.tempering, "converged": converged,
            "inference_s": round(time.perf_counter() - begin, 3),
        }  # fmt: skip
        return summarise(
            scene, spectrogram, draws, randoms, kind=kind_of("variational", self.tempering),
            attrs=attrs, waveforms=self.draws * self.waveforms, trace={"elbo": np.stack(trace)},
            counted=self.moment_draws,
        )  # fmt: skip

    def _fit(
        self, density: Density, location: Values, log_sd: Values, randoms: Randoms
    ) -> tuple[list[np.ndarray], bool]:
        parameters = requires_grad(location) + requires_grad(log_sd)
        optimiser = torch.optim.Adam(parameters, self.learning_rate, betas=(0.9, 0.99))
        trace: list[Tensor] = []
        for step in range(self.steps):
            for group in optimiser.param_groups:
                group["lr"] = self.learning_rate * _cooling(step, self.steps)
            elbo = self._elbo(density, location, log_sd, randoms)
            optimiser.zero_grad()
            (-elbo.sum()).backward()
            optimiser.step()
            trace.append(elbo.detach())
            if self.progress is not None:
                self.progress(step + 1, self.steps)
            if self._converged(trace, density):
                break
        rows = list(torch.stack(trace).cpu().numpy())
        return rows, len(rows) < self.steps

    def _elbo(self, density: Density, location: Values, log_sd: Values, randoms: Randoms) -> Tensor:
        entropy, draw = torch.zeros((), device=randoms.device), {}
        for name, mean in location.items():
            sd = log_sd[name].exp()
            draw[name] = mean + sd * randoms.normal(mean.shape, mean.dtype)
            constant = 0.5 * math.log(2 * math.pi * math.e)
            entropy = entropy + (log_sd[name] + constant).flatten(1).sum(1)
        return density(draw, self.tempering) + entropy

    def _converged(self, trace: list[Tensor], density: Density) -> bool:
        """Whether no recording's ELBO has risen by more than the tolerance over a window."""
        if self.tolerance == 0 or len(trace) % _WINDOW or len(trace) < 2 * _WINDOW:
            return False
        now = torch.stack(trace[-_WINDOW:]).mean(0)
        before = torch.stack(trace[-2 * _WINDOW : -_WINDOW]).mean(0)
        size = density.mixture.values[0].numel() * self.tempering
        return bool((now - before < self.tolerance * size).all())

    def _values(
        self, density: Density, location: Values, log_sd: Values, randoms: Randoms
    ) -> Values:
        with torch.no_grad():
            draw = {
                name: mean + log_sd[name].exp() * randoms.normal(mean.shape, mean.dtype)
                for name, mean in location.items()
            }
            return density.constrain(draw)[0]


def _cooling(step: int, steps: int) -> float:
    """1 over the first two thirds, then linearly down to 0.1."""
    return min(1.0, 0.1 + 0.9 * 3.0 * (1.0 - step / steps))
