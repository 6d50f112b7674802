"""Stochastic variational inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.convergence import measure_rise
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.resources import check_memory
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.guides import Guide, check_guide, make_guide
from avse_ppl.inference.vi.khat import (
    K_HAT_DRAWS,
    K_HAT_LIMIT,
    TELLING_LATENTS,
    compute_k_hat,
    describe_k_hat,
)
from avse_ppl.inference.vi.optimize import ElboTrace, OptimizerSettings, maximise_elbo
from avse_ppl.models.protocols import HasEncoder
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.utils.run_time import RunClock

_STEPS, _STEPS_BESIDE = 150, 120  # without and with a prediction


@dataclass(frozen=True)
class SVI(InferenceMethod):
    r"""Variational inference with a normal guide over all latents, many recordings at once.

    .. math:: \max_q \; E_{u \sim q}[w \log p(x | u) + \log p(u)] + H[q]

    on the real line, by Adam on reparametrised draws. Starts from the prior's encoder and the noise
    model's own updates. Each recording searches until its evidence lower bound (ELBO) has stopped
    rising or the steps are nearly over; then the learning rate falls to nothing. One whose ELBO
    is to rise noticeably after that searches on for up to half as many steps. Among others of its
    length it gets the same result as alone.

    What it approximates: a mean-field guide has no correlations, so variances come out too small
    where the posterior has them; the other guides have some. How far the guide is from the
    posterior is in ``posterior.fit[r].k_hat`` for recording r: the shape of the tail of the
    importance ratios ``p(x, u) / q(u)``. Above 0.7, ``posterior.warnings`` says so, if there
    are at most 400 latents: with more no guide passes, and it is not computed. By how many
    nats the ELBO rose over the last 25 steps is in ``posterior.fit[r].elbo_rise``;
    ``posterior.warnings`` says so above 0.0265 nats a bin, what powers cost that are wrong by 1 dB,
    if as much is to be expected of more steps.

    Parameters
    ----------
    steps
        At most this many gradient steps, where the bound does not rise noticeably at their end;
        None: 150, and 120 beside a prediction that informs the latents, as it tells noise from
        speech at the start.
    learning_rate
        Adam's while a recording searches; it falls to 0 along half a cosine as it settles.
    guide
        ``"mean-field"``; ``"structured"``, in which each latent with a value for each frame is a
        chain over time; or ``"low-rank"``, with a few directions common to all latents.
    rank
        Number of those directions.
    noise_updates
        Closed-form updates of the noise, before the first step and again after the fourth, where
        the noise model has them (``maximise``, as NMF does) and the speech prior an encoder.
    moment_draws
        Over how many of the draws mean and variance are taken, None for all. Each costs half of
        what a step does.
    k_hat_draws
        Draws behind k-hat, at least 25, or 0 to leave it out; each costs half of what a step does.
        Only computed where waveforms are drawn, and there are at most 400 latents.
    tolerance
        A recording has stopped rising when the mean ELBO of 25 steps is above that of the 25 before
        by less than this many nats a bin, times the tempering. 0 never stops early.
    extension
        Further steps of a recording that would be warned of, as a share of ``steps``: 25 at a time,
        until it would not be. Clean recordings take half as many, of which the noise is far below
        speech; a prior that knows little of speech takes noise for it, the longer the more.
    settling
        Last steps of a recording, in which its learning rate falls; a third of ``steps`` at most.
        Standard deviations of a guide with correlations take more of them to be right than means.
    tempering
        Power w of the likelihood, flagged in ``posterior.kind``. STFT frames overlap, so that each
        sample of a recording is counted ``n_fft / hop`` times; ``w = hop / n_fft``, a quarter,
        undoes that (a composite likelihood). 1 is right where the bins are independent, as in
        simulations of the scene.
    draws, waveforms, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the scene has no latents, or its posterior is
        improper or unbounded.

    References
    ----------
    Hoffman, Blei, Wang and Paisley, "Stochastic variational inference", JMLR 2013. Kucukelbir et
    al., "Automatic differentiation variational inference", JMLR 2017. Varin, Reid and Firth, "An
    overview of composite likelihood methods", Statistica Sinica 2011. Yao, Vehtari, Simpson and
    Gelman, "Yes, but did it work?: evaluating variational inference", ICML 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = SVI(steps=10, draws=5)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> posterior.kind, posterior.speech.shape
    ('variational, tempered 0.25', (1, 5, 1, 4000))
    """

    steps: int | None = None
    learning_rate: float = 0.3
    tempering: float = 0.25
    guide: str = "mean-field"
    rank: int = 5
    noise_updates: int = 20
    moment_draws: int | None = 20
    k_hat_draws: int = 50
    tolerance: float = 1e-4
    extension: float = 0.0
    settling: int = 40

    name: ClassVar[str] = "svi"
    faster: ClassVar[str] = (
        "fewer steps, a mean-field guide, a noise model with fewer latents, or a GPU"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None:
            check_count("steps", self.steps)
        check_count("rank", self.rank)
        check_count("settling", self.settling)
        check_count("noise_updates", self.noise_updates, minimum=0)
        check_guide(self.guide)
        if self.k_hat_draws != 0 or isinstance(self.k_hat_draws, bool):
            check_count("k_hat_draws", self.k_hat_draws, minimum=K_HAT_DRAWS)
        if self.moment_draws is not None:
            check_count("moment_draws", self.moment_draws)
        check_positive("learning_rate", self.learning_rate)
        for name in ("tolerance", "extension"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")

    @property
    def full_name(self) -> str:
        """``"svi"``, with the guide behind it unless that is mean-field."""
        return self.name if self.guide == "mean-field" else f"{self.name}-{self.guide}"

    def _run(self, problem: Problem) -> Draws:
        """Posterior with ``trace["elbo"]``, nats, ``(step, recording)``."""
        density = LogDensity(problem.scene, problem.spectrogram)
        check_memory(density, draws=self.draws, waveforms=self.n_waveforms)
        guide, trace = self.fit_guide(density, problem.streams, problem.clock)
        with torch.no_grad():
            values = [density.constrain(guide.draw(problem.streams))[0] for _ in range(self.draws)]

        # Whether the ELBO of each recording was still rising.
        fit, converged = [], trace.ended_early is None
        for row, n in enumerate(problem.spectrogram.n_samples):
            bins = density.mixture.frames.freq * density.mixture.stft.count_frames(n)
            end = measure_rise(trace.elbo[:, row], bins, self.tempering, trace.settling)
            converged &= end.settled
            fit.append(
                FitInfo(
                    elbo_rise=None if np.isnan(end.rise) else round(end.rise, 3),
                    warnings=(end.describe("the ELBO"),) if end.rising else (),
                )
            )

        telling = self.k_hat_draws and self.waveforms and guide.layout.size <= TELLING_LATENTS

        def assess_guide() -> Sequence[FitInfo]:
            k_hats = compute_k_hat(
                density, guide, problem.streams, self.k_hat_draws, self.tempering
            )
            return [
                FitInfo(k_hat=k, warnings=(describe_k_hat(k),) if k > K_HAT_LIMIT else ())
                for k in k_hats
            ]

        return Draws(
            values,
            Approximation(guide.kind),
            moment_draws=self.moment_draws,
            trace={"elbo": trace.elbo},
            fit=fit,
            attrs={
                "steps": len(trace.elbo),
                "converged": converged,
                "settling": trace.settling,
            },
            ended_early=trace.ended_early,
            check=assess_guide if telling else None,
        )

    def fit_guide(
        self, density: LogDensity, streams: RandomStreams, clock: RunClock | None = None
    ) -> tuple[Guide, ElboTrace]:
        """Guide that maximises the evidence lower bound, and the course of the bound.

        A ``clock`` counts the steps, and ends the ascent when its time is over.

        Raises
        ------
        ValueError
            If the scene has no latents, or its posterior is improper or unbounded.
        """
        if not density.sites:
            raise ValueError(
                "the scene has no latents, so there is nothing to fit: its posterior is one Wiener "
                "filter; use Exact() ('exact')"
            )
        location, log_sd = warm_start(density, streams)
        guide = make_guide(
            self.guide, location, log_sd, density.mixture.frames.time, self.rank, streams
        )
        # Noise that is fitted to speech which is not even a guess takes speech for its own.
        updates = self.noise_updates if isinstance(density.scene.speech, HasEncoder) else 0
        predictor = density.scene.predictor
        informed = predictor is not None and predictor.informs_latents
        settings = OptimizerSettings(
            self.steps or (_STEPS_BESIDE if informed else _STEPS),
            self.learning_rate, self.tempering, self.tolerance, updates,
            clock or RunClock(), self.extension, self.settling,
        )  # fmt: skip
        return guide, maximise_elbo(density, guide, streams, settings)
