"""Identified quantities of a posterior: log powers of speech and of noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.handlers import serialise
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.signal.stft import Frames, Spectrogram

_BANDS = 16
_LOWEST_HZ = 100.0


@serialise
def log_powers(
    scene: Scene,
    mixture: Spectrogram,
    draws: Sequence[Mapping[str, Tensor]],
    *,
    chains: int = 1,
) -> dict[str, np.ndarray]:
    r"""Log power of speech and of noise in each frame and in each frequency band, for each draw.

    .. math:: \log \frac1F \sum_f S_{ft}, \quad \log \frac{1}{|b| T} \sum_{f \in b, t} S_{ft}

    The latents themselves are not identified: factors may be permuted and rescaled, and a level may
    be moved from one latent to another. The data inform the powers.

    Parameters
    ----------
    scene, mixture
        Scene, and the mixture that it was inferred from.
    draws
        Values of all latents, one mapping a draw, ``(recording, ...)`` each; the draws of the
        first chain first.
    chains
        How many chains of equal length the draws are from.

    Returns
    -------
    dict
        ``"speech.frame"`` and ``"noise.frame"``, ``(chain, draw, recording, time)``, NaN where
        nothing is observed; ``"speech.band"`` and ``"noise.band"``, ``(chain, draw, recording,
        band)``, up to 16 bands of equal width on a log scale above 100 Hz. Nats.

    Examples
    --------
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=False)
    >>> simulated = simulate(scene, n_samples=4096)
    >>> powers = log_powers(scene, simulated.mixture, [simulated.latents] * 6, chains=2)
    >>> powers["noise.frame"].shape, powers["speech.band"].shape
    ((2, 3, 1, 17), (2, 3, 1, 16))
    """
    bands = average_bands(mixture.frames)
    rows = [
        average_log_powers(scene.laws_given(values, mixture), mixture, bands) for values in draws
    ]
    return {
        name: np.stack([row[name] for row in rows]).reshape(chains, -1, *rows[0][name].shape)
        for name in rows[0]
    }


def average_log_powers(laws: Laws, mixture: Spectrogram, bands: Tensor) -> dict[str, np.ndarray]:
    """Log power of speech and of noise in each frame and band, of one draw; see `log_powers`.

    Parameters
    ----------
    laws
        Distributions of speech and of noise given the latents.
    mixture
        What was inferred: what is not observed of it does not count.
    bands
        Weights ``(band, freq)`` of `average_bands`.

    Examples
    --------
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=True)
    >>> mixture = simulate(scene, n_samples=4096).mixture
    >>> laws = scene.laws_given({"speech.gain": torch.zeros(1, 1, 17)}, mixture)
    >>> average_log_powers(laws, mixture, average_bands(mixture.frames))["noise.band"].shape
    (1, 16)
    """
    mask, row = mixture.mask, {}
    for role, law in (("speech", laws.speech), ("noise", laws.noise)):
        # Second moment: power and squared mean.
        power = law.power if law.zero_mean else law.power + law.mean.abs().square()
        power = power.expand(mixture.values.shape).to(bands.dtype)
        if mask is None or mask.shape[1] == 1:
            observed = torch.ones_like(power[:, :1]) if mask is None else mask.to(power.dtype)
            frame = power.mean(1).log().masked_fill(observed[:, 0] == 0, torch.nan)
            band = ((bands @ power) * observed).sum(-1) / observed.sum(-1)
        else:  # some bins are not observed: NaN where none of a frame or a band is
            observed = mask.to(power.dtype)
            frame = ((power * observed).sum(1) / observed.sum(1)).log()
            band = (bands @ (power * observed)).sum(-1) / (bands @ observed).sum(-1)
        row[f"{role}.frame"] = frame.cpu().numpy()
        row[f"{role}.band"] = band.log().cpu().numpy()
    return row


def average_bands(frames: Frames) -> Tensor:
    """Weights ``(band, freq)`` that average over each band; bands without a bin are left out.

    Examples
    --------
    >>> from avse_ppl import Stft
    >>> weights = average_bands(Stft().frames(4096))
    >>> weights.shape, bool(torch.allclose(weights.sum(1), torch.ones(16)))
    (torch.Size([16, 513]), True)
    """
    top = frames.sample_rate_hz / 2
    edges = torch.logspace(np.log10(_LOWEST_HZ), np.log10(top), _BANDS + 1, dtype=torch.float64)
    index = torch.bucketize(frames.freq_hz[:, 0].double().cpu(), edges[1:-1], right=True)
    member = torch.nn.functional.one_hot(index, _BANDS).T.to(frames.dtype)
    member = member[member.sum(1) > 0].to(frames.device)
    return member / member.sum(1, keepdim=True)
