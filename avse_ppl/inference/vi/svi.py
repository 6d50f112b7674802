"""Stochastic variational inference."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from avse_ppl.inference.core.build_posterior import build_posterior, kind_of
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.resources import check_memory, explain_out_of_memory
from avse_ppl.inference.core.setup import Mixture, RandomStreams, Seed, check_seed, prepare
from avse_ppl.inference.core.threads import limit_threads
from avse_ppl.inference.vi.guides import Guide, check_guide, make_guide
from avse_ppl.inference.vi.khat import K_HAT_DRAWS, k_hat, k_hat_warnings
from avse_ppl.inference.vi.optimize import (
    NOTICEABLE,
    ElboTrace,
    OptimizerSettings,
    elbo_rise_warnings,
    final_elbo_rise,
    maximise_elbo,
)
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_ROUTINES = {"mean-field": "svi", "structured": "svi-structured", "low-rank": "svi-low-rank"}


@dataclass(frozen=True)
class SVI:
    r"""Variational inference with a normal guide over all latents, many recordings at once.

    .. math:: \max_q \; E_{u \sim q}[w \log p(x | u) + \log p(u)] + H[q]

    on the real line, by Adam on reparametrised draws. Starts from the prior's encoder and the noise
    model's own updates; stops when the evidence lower bound (ELBO) of every recording has stopped
    rising.

    What it approximates: a mean-field guide has no correlations, so variances come out too small
    where the posterior has them; the other guides have some. How far the guide is from the
    posterior is in ``posterior.attrs["k_hat"]``, one for each recording: the shape of the tail of
    the importance ratios ``p(x, u) / q(u)``. Above 0.7, ``posterior.warnings`` says so, if there
    are at most 400 latents: with more no guide passes, and `diagnose` says it of all. By how many
    nats the ELBO rose over the last third of the steps is in ``posterior.attrs["elbo_rise"]``;
    ``posterior.warnings`` says so above 0.0265 nats a bin, what powers cost that are wrong by 1 dB.

    Parameters
    ----------
    steps
        At most this many gradient steps.
    learning_rate
        Adam's; it falls linearly to a tenth.
    guide
        ``"mean-field"``; ``"structured"``, in which each latent with a value for each frame is a
        chain over time; or ``"low-rank"``, with a few directions common to all latents.
    rank
        Number of those directions.
    noise_updates
        Closed-form updates of the noise, before the first step and again after the fourth, where
        the noise model has them (``maximise``, as NMF does) and the speech prior an encoder.
    draws
        Draws of the fitted guide, and waveforms, in the posterior.
    waveforms
        Whether to draw waveforms too: needed for intervals, left out for speed.
    moment_draws
        Over how many of the draws mean and variance are taken, None for all. Each costs half of
        what a step does.
    k_hat_draws
        Draws behind k-hat, at least 25, or 0 to leave it out; each costs half of what a step does.
        Only computed where waveforms are drawn.
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
    ('variational', (1, 5, 1, 4000))
    """

    steps: int = 120
    learning_rate: float = 0.15
    guide: str = "mean-field"
    rank: int = 5
    noise_updates: int = 20
    draws: int = 50
    waveforms: bool = True
    moment_draws: int | None = None
    k_hat_draws: int = 100
    tempering: float = 1.0
    tolerance: float = 1e-4
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_count("steps", self.steps)
        check_count("draws", self.draws)
        check_count("rank", self.rank)
        check_count("noise_updates", self.noise_updates, minimum=0)
        check_guide(self.guide)
        if self.k_hat_draws != 0 or isinstance(self.k_hat_draws, bool):
            check_count("k_hat_draws", self.k_hat_draws, minimum=K_HAT_DRAWS)
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
        with limit_threads(spectrogram), explain_out_of_memory(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: RandomStreams, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        density = LogDensity(scene, spectrogram)
        check_memory(density, draws=self.draws, waveforms=self.draws * self.waveforms)
        guide = self._start(density, randoms)
        course = maximise_elbo(density, guide, randoms, self._ascent(scene))
        with torch.no_grad():
            draws = [density.constrain(guide.draw(randoms))[0] for _ in range(self.draws)]
        size = NOTICEABLE * density.mixture.values[0].numel() * self.tempering
        attrs = {
            "routine": _ROUTINES[self.guide], "seed": seed, "steps": len(course.elbo),
            "tempering": self.tempering, "converged": course.converged,
            "warnings": elbo_rise_warnings(course, size),
            "inference_s": round(time.perf_counter() - begin, 3), **_rises(course),
        }  # fmt: skip
        posterior = build_posterior(
            scene, spectrogram, draws, randoms, kind=kind_of(guide.kind, self.tempering),
            attrs=attrs, waveforms=self.draws * self.waveforms, trace={"elbo": course.elbo},
            counted=self.moment_draws,
        )  # fmt: skip
        if self.waveforms and self.k_hat_draws:
            # After all other draws, so that checking does not change what is checked.
            found = k_hat(density, guide, randoms, self.k_hat_draws, self.tempering)
            posterior.attrs["k_hat"] = found
            said = k_hat_warnings(found, guide.layout.size)
            for texts, more in zip(posterior.attrs["warnings"], said, strict=True):
                texts += more
        return posterior

    def _start(self, density: LogDensity, randoms: RandomStreams) -> Guide:
        if not density.sites:
            raise ValueError(
                "the scene has no latents, so there is nothing to fit: its posterior is one Wiener "
                "filter; use Exact() ('exact')"
            )
        location, log_sd = warm_start(density, randoms)
        time_frames = density.mixture.frames.time
        return make_guide(self.guide, location, log_sd, time_frames, self.rank, randoms)

    def _ascent(self, scene: Scene) -> OptimizerSettings:
        # Noise that is fitted to speech which is not even a guess takes speech for its own.
        updates = self.noise_updates if hasattr(scene.speech, "encode") else 0
        return OptimizerSettings(
            self.steps, self.learning_rate, self.tempering, self.tolerance, updates, self.progress
        )


def _rises(course: ElboTrace) -> dict[str, list[float]]:
    """Attribute of the posterior, where there were steps enough to tell."""
    rise = final_elbo_rise(course)[0]
    return {"elbo_rise": [round(float(r), 3) for r in rise]} if np.isfinite(rise).all() else {}
