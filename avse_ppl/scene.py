"""The scene: speech plus noise, observed as one mixture, as a Pyro program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyro
import torch
from pyro import poutine
from torch import Tensor

from avse_ppl.distributions import ComplexNormal
from avse_ppl.stft import Frames, Spectrogram, Stft


# Speech, noise and their parts may each open plate("time", ...): hiding a plate's own bookkeeping
# site keeps a trace from refusing the second of the same name.
def plates_reusable() -> Any:
    """Return a handler under which one plate name may be opened again."""
    return poutine.block(hide_fn=lambda msg: type(msg.get("fn")).__name__ == "_Subsample")


def numbers_on(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which the plain numbers of a model become tensors of that device."""
    return nullcontext() if device.type == "cpu" else device


NoiseModel = Callable[[Frames], ComplexNormal]
VisualReliability = Callable[[Frames, Tensor], Tensor]


class SpeechPrior(Protocol):
    """Samples its latents, returns the law of the speech STFT given them."""

    def __call__(self, frames: Frames, visual: Tensor | None = None, /) -> ComplexNormal:
        """Law of speech, ``(freq, time)``; ``visual`` are features gated by reliability."""
        ...


class Laws(NamedTuple):
    """What a scene says of speech and noise, given its latents."""

    speech: ComplexNormal
    noise: ComplexNormal

    @property
    def mixture(self) -> ComplexNormal:
        """Law of their sum."""
        return self.speech.convolve(self.noise)


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
        Scores the video per frame; only with audio-visual priors.

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

    def __call__(self, mixture: Spectrogram | Frames, video: Tensor | None = None) -> Laws:
        """Run the program: observe a spectrogram, or simulate a mixture on bare frames."""
        observed = isinstance(mixture, Spectrogram)
        frames = mixture.frames if observed else mixture
        recordings = mixture.recordings if observed else 1
        with plates_reusable(), pyro.plate("recording", recordings, dim=-3):
            laws = self.laws(frames, video)
            law = laws.mixture
            mask = mixture.mask if observed else None
            with (
                pyro.plate("freq", frames.freq, dim=-2),
                pyro.plate("time", frames.time, dim=-1),
                poutine.mask(mask=True if mask is None else mask),  # pyright: ignore[reportArgumentType]
            ):
                pyro.sample("mixture", law, obs=mixture.values if observed else None)
        return laws

    def laws(self, frames: Frames, video: Tensor | None = None) -> Laws:
        """Sample the latents and return the laws; called inside the recording plate."""
        with numbers_on(frames.device):
            return self._laws(frames, video)

    def _laws(self, frames: Frames, video: Tensor | None) -> Laws:
        visual = video
        if video is not None and self.reliability is not None:
            visual = self.reliability(frames, video)[..., None, :] * video
        return Laws(self.speech(frames, visual), self.noise(frames))

    def laws_given(self, values: Mapping[str, Tensor], mixture: Spectrogram) -> Laws:
        """Laws for given values of all latents, ``(recording, ...)`` each."""
        recordings = next(iter(values.values())).shape[0] if values else mixture.recordings
        with (
            torch.no_grad(),
            poutine.block(),
            plates_reusable(),
            poutine.condition(data=dict(values)),
            pyro.plate("recording", recordings, dim=-3),
        ):
            return self.laws(mixture.frames)

    @property
    def stft(self) -> Stft:
        """The front end that the speech prior was made for."""
        return getattr(self.speech, "stft", None) or Stft()
