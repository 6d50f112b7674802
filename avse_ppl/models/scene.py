"""The scene: speech plus noise, observed as one mixture, as a Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyroapi import handlers, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import MIXTURE, numbers_on, recording_plate
from avse_ppl.models.predictors.predictor import Evidence, Predictor
from avse_ppl.models.protocols import HasStft, NoiseModel, SpeechPrior, move_model, name_of
from avse_ppl.models.visual.gate import gate_features
from avse_ppl.signal.stft import Frames, Spectrogram, Stft
from avse_ppl.utils.tables import format_facts, format_facts_html

VisualReliability = Callable[[Frames, Any], Any]


@dataclass(frozen=True)
class Laws:
    """Distributions of speech and noise, given the latents of a scene.

    Parameters
    ----------
    prior, noise
        Of their STFTs; that of speech without a prediction.
    evidence
        What a prediction says of speech, see `Predictor`; None without.
    """

    prior: ComplexNormal
    noise: ComplexNormal
    evidence: Evidence | None = None

    @property
    def speech(self) -> ComplexNormal:
        """Law of speech, given a prediction where there is one."""
        return self.prior if self.evidence is None else self.evidence.speech

    @property
    def informed(self) -> ComplexNormal:
        """Law of speech under which the mixture informs the latents."""
        return self.prior if self.evidence is None else self.evidence.plug_in

    @property
    def mixture(self) -> ComplexNormal:
        """Law of speech and noise together, under which the latents are inferred."""
        return self.informed.convolve(self.noise)

    @property
    def widened_noise(self) -> ComplexNormal:
        """Law of the noise, as far as the mixture counts for speech beside a prediction."""
        noise = self.noise
        if self.evidence is None:
            return noise
        mean = 0.0 if noise.zero_mean else noise.mean
        power = noise.power / self.evidence.mixture_weight + self.evidence.least_noise
        return ComplexNormal(mean, power, validate_args=False)

    def condition(self, mixture: Tensor) -> ComplexNormal:
        """Posterior of speech, given the latents and the mixture: the Wiener filter."""
        return self.speech.condition(self.widened_noise, mixture)


@dataclass(frozen=True)
class Scene:
    r"""Speech plus noise as one Pyro model.

    .. math:: x_{ft} = s_{ft} + b_{ft}, \quad s_{ft} \sim N_c(m^s_{ft}, S_{ft}), \quad
        b_{ft} \sim N_c(m^b_{ft}, B_{ft})

    Given the latents that ``speech`` and ``noise`` sample, everything is complex Gaussian, so
    speech is integrated out exactly, ``x_ft ~ N_c(m^s + m^b, S + B)``, and comes back by Wiener
    filtering. Recordings lie on an outer plate at ``dim=-3``; models use dims -2 (frequency) and
    -1 (time) only.

    Parameters
    ----------
    speech
        Speech prior, for instance from ``load_speech("tcvae")``.
    noise
        Noise model: one of the library's or a function of yours.
    reliability
        Reliability model of the video, only with audio-visual priors: one of
        `avse_ppl.models.visual.reliability`, or a function of yours. None: a gate of 1
        wherever there is a face.

    Examples
    --------
    >>> import numpy as np, pyro, pyro.distributions as dist
    >>> from avse_ppl import GaussianSpeech, SVI
    >>> def hiss(frames):
    ...     floor = pyro.sample("floor", dist.LogNormal(-1.0, 1.0))
    ...     return ComplexNormal(0.0, floor)
    >>> scene = Scene(GaussianSpeech(), hiss)
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = SVI(steps=20)(scene, wave, seed=0)
    >>> posterior.variance.shape
    (1, 513, 17)
    """

    speech: SpeechPrior
    noise: NoiseModel
    reliability: VisualReliability | None = None
    predictor: Predictor | None = None

    def facts(self) -> dict[str, object]:
        """Names of the models, for its ``repr`` in notebooks."""
        models = {"speech": self.speech, "noise": self.noise, "reliability": self.reliability}
        return {role: model and name_of(model) for role, model in models.items()}

    def __repr__(self) -> str:
        return format_facts("Scene", self.facts())

    def _repr_html_(self) -> str:
        return format_facts_html("Scene", self.facts())

    def __call__(self, mixture: Spectrogram | Frames, video: Tensor | None = None) -> Laws:
        """Run the program: observe a spectrogram, or simulate a mixture on bare frames."""
        if isinstance(mixture, Spectrogram):
            return self.observe(mixture.frames, mixture.values, mixture.mask, video)
        return self.observe(mixture, None, None, video)

    def observe(
        self,
        frames: Frames,
        values: Tensor | None,
        mask: Tensor | None,
        video: Tensor | None = None,
    ) -> Laws:
        """Run the program on ``(recording, freq, time)`` values of torch or JAX, or on none."""
        recordings = 1 if values is None else values.shape[0]
        with recording_plate(recordings):
            laws = self.laws(frames, video)
            with (
                pyro.plate("freq", frames.freq, dim=-2),
                pyro.plate("time", frames.time, dim=-1),
                handlers.mask(mask=True if mask is None else mask),
            ):
                pyro.sample(MIXTURE, laws.mixture, obs=values)
        return laws

    def laws(self, frames: Frames, video: Tensor | None = None) -> Laws:
        """Sample the latents and return the laws; called inside the recording plate."""
        with numbers_on(frames.device):
            visual = frames.visual if video is None else video
            if visual is not None and self.reliability is not None:
                visual = gate_features(frames, visual, self.reliability)
            speech = self.speech(frames, visual)
            if self.predictor is None:
                return Laws(speech, self.noise(frames))
            evidence = self.predictor(frames, speech)
            return Laws(speech, self.noise(frames), evidence)

    def laws_given(self, values: Mapping[str, Tensor], mixture: Spectrogram) -> Laws:
        """Laws for given values of all latents, ``(recording, ...)`` each."""
        recordings = next(iter(values.values())).shape[0] if values else mixture.recordings
        with (
            torch.no_grad(),
            poutine.block(),
            poutine.condition(data=dict(values)),
            recording_plate(recordings),
        ):
            return self.laws(mixture.frames)

    def to(self, device: torch.device, dtype: torch.dtype) -> Scene:
        """Return the same scene with its models on a device and in a dtype."""
        return replace(
            self,
            speech=move_model(self.speech, device, dtype),
            noise=move_model(self.noise, device, dtype),
            predictor=move_model(self.predictor, device, dtype),
        )

    @property
    def stft(self) -> Stft:
        """The front end that the speech prior was made for."""
        return self.speech.stft if isinstance(self.speech, HasStft) else Stft()
