"""Suitability of a recording: whether it is what the models describe, one talker in noise.

A multinomial logistic regression on `describe_posterior` says which of six classes a recording is
like, and a linear regression what SI-SDR is to be expected. Both are fitted by
``scripts/fit_suitability.py`` and shipped as a table of numbers; see docs/concepts/suitability.md
for what they find and what they miss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from avse_ppl.evaluation.suitability.describe import Description, describe_posterior
from avse_ppl.models.protocols import HasNetwork
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.utils.files import read_json

TABLE = Path(__file__).with_name("suitability.json")
ORDINARY, TWO, SI_SDR = "ordinary", "two talkers", "expected_si_sdr_db"
SHORTEST_S, RATE_HZ, _SMALLEST_FFT = 1.0, 16_000, 512  # of what can be judged
_TINY = 1e-4  # what a probability is rounded to
_FURTHEST = 4.0  # standard deviations that a statistic may be away from the mean

REMARKS: Mapping[str, str] = MappingProxyType(
    {
        "two talkers": "this sounds like two people talking at once, not like one speaker in "
        "noise: what is called speech may be either of them or both; with a video of the "
        "speaker's face, use an audio-visual prior",
        "reversed speech": "this sounds like speech played backwards, which the speech prior has "
        "not learned: check how the file was made",
        "music": "this sounds like music: what is called speech may be instruments or a singer; "
        "do not rely on the result unless somebody speaks",
        "no speech": "this sounds like noise without speech: what is called speech is probably "
        "noise; check that it is the right recording, or cut out the part where somebody speaks",
        "clipped": "this recording is heavily clipped, and the model knows no clipping: distorted "
        "speech is kept or taken for noise; record it again at a lower level, or declip it first",
    }
)
_FAILED = (
    "speech and noise are probably not well separated here: about {expected:.0f} dB SI-SDR are to "
    "be expected; try another noise model or inference method, and listen before you use it"
)


@dataclass(frozen=True)
class SuitabilityModel:
    r"""Which class a recording is like, and what SI-SDR is to be expected, from its description.

    With z the standardised statistics, kept within 4 standard deviations, and
    :math:`\phi = (1, z, z^2)`,

    .. math:: p(k) \propto e^{w_k^T \phi}, \qquad \mathrm{SI\text{-}SDR} \approx v^T \phi

    Parameters
    ----------
    names
        The statistics, in order.
    center, spread
        Mean and standard deviation of each on the recordings of the fit.
    classes
        Names of the classes.
    weights
        ``(class, 1 + 2 * statistic)``.
    si_sdr_weights
        ``(1 + 2 * statistic,)``, dB.
    margins
        A recording is warned of if, for any class, log odds against "ordinary" are above this.
    least_si_sdr_db
        A recording is warned of if the expected SI-SDR is below this.
    fitted_on
        Which recordings, in words.
    """

    names: tuple[str, ...]
    center: np.ndarray
    spread: np.ndarray
    classes: tuple[str, ...]
    weights: np.ndarray
    si_sdr_weights: np.ndarray
    margins: Mapping[str, float]
    least_si_sdr_db: float
    fitted_on: str = ""

    def expand(self, description: Description) -> np.ndarray:
        r"""Make :math:`\phi` of a description, ``(1 + 2 * statistic,)``."""
        values = np.array([description[name] for name in self.names])
        z = np.clip((values - self.center) / self.spread, -_FURTHEST, _FURTHEST)
        return np.concatenate(([1.0], z, z * z))

    def score(self, description: Description) -> dict[str, float]:
        """Probability of each class, and the SI-SDR to be expected."""
        phi = self.expand(description)
        logits = self.weights @ phi
        p = np.exp(logits - logits.max())
        scores = dict(zip(self.classes, (p / p.sum()).tolist(), strict=True))
        return {**scores, SI_SDR: float(self.si_sdr_weights @ phi)}

    def name_doubt(self, scores: Mapping[str, float], with_video: bool = False) -> str | None:
        """Class that a recording is rather like than ordinary, or None.

        With video a second talker is noise like any other.
        """
        ordinary = scores[ORDINARY] + (scores[TWO] if with_video else 0.0)
        beyond = {
            name: math.log((scores[name] + _TINY) / (ordinary + _TINY)) - margin
            for name, margin in self.margins.items()
            if not (with_video and name == TWO)
        }
        worst = max(beyond, key=lambda name: beyond[name])
        return worst if beyond[worst] > 0 else None

    def describe_doubts(self, scores: Mapping[str, float], with_video: bool = False) -> list[str]:
        """What to warn of, in words; empty for an ordinary recording."""
        doubt = self.name_doubt(scores, with_video)
        if doubt is not None:
            return [REMARKS[doubt]]
        if scores[SI_SDR] < self.least_si_sdr_db:
            return [_FAILED.format(expected=scores[SI_SDR])]
        return []

    @classmethod
    def load(cls, path: str | Path = TABLE) -> SuitabilityModel:
        """Read a table of numbers, by default the shipped one.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is something else.

        Examples
        --------
        >>> SuitabilityModel.load().classes[:2]
        ('ordinary', 'two talkers')
        """
        found: Any = read_json(Path(path))
        try:
            arrays = {
                name: np.array(found[name], float)
                for name in ("center", "spread", "weights", "si_sdr_weights")
            }
            model = cls(
                names=tuple(found["names"]),
                classes=tuple(found["classes"]),
                margins={name: float(found["margins"][name]) for name in found["classes"][1:]},
                least_si_sdr_db=float(found["least_si_sdr_db"]),
                fitted_on=str(found["fitted_on"]),
                **arrays,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected a table of scripts/fit_suitability.py in {path}, found no usable "
                f"{error}; fit it again"
            ) from error
        size = 1 + 2 * len(model.names)
        shapes = {
            "weights": (len(model.classes), size),
            "si_sdr_weights": (size,),
            "center": (len(model.names),),
            "spread": (len(model.names),),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape} in {path}, found {arrays[name].shape}; fit "
                    "it again"
                )
        return model


@lru_cache(maxsize=1)
def load_shipped() -> SuitabilityModel:
    """Return the shipped model, read once."""
    return SuitabilityModel.load()


def score_suitability(
    posterior: Posterior, recording: int = 0, speech: object = None
) -> dict[str, float] | None:
    """Scores of one recording by the shipped model; None where it is not to be judged.

    Judged are recordings of a second and more, at 16 kHz and windows of 32 ms and more, that are
    not silent.

    Parameters
    ----------
    posterior
        From any inference method; fitted with ``"svi"``, the ``tcvae`` prior and NMF noise.
    recording
        Which one of the batch.
    speech
        The speech prior: of one without a network, which has not learned what one talker is like,
        nothing is judged. None: a learned prior.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=16000).astype("float32")
    >>> prior = GaussianSpeech()
    >>> posterior = SVI(steps=5, draws=2)(Scene(prior, stationary), wave, seed=0)
    >>> scores = score_suitability(posterior)
    >>> scores["music"] < 0.1, score_suitability(posterior, speech=prior)
    (True, None)
    """
    stft, n = posterior.stft, posterior.n_samples[recording]
    if speech is not None and not isinstance(speech, HasNetwork):
        return None
    if stft.sample_rate_hz != RATE_HZ or stft.n_fft < _SMALLEST_FFT or n < SHORTEST_S * RATE_HZ:
        return None
    if not np.any(posterior.mixture[recording]):
        return None
    return load_shipped().score(describe_posterior(posterior, recording))


def average_scores(
    scored: Sequence[tuple[Mapping[str, float] | None, float]],
) -> dict[str, float] | None:
    """Scores of a recording from those of its chunks and channels, each with its length.

    Examples
    --------
    >>> average_scores([({"music": 0.2}, 3.0), ({"music": 0.8}, 1.0), (None, 0.5)])
    {'music': 0.35}
    """
    kept = [(one, length) for one, length in scored if one is not None]
    if not kept:
        return None
    total = sum(length for _, length in kept)
    return {k: round(sum(one[k] * n for one, n in kept) / total, 4) for k in kept[0][0]}


def doubt_recording(scores: Mapping[str, float] | None, with_video: bool = False) -> list[str]:
    """What to warn of by the shipped model; nothing if there are no scores."""
    return [] if scores is None else load_shipped().describe_doubts(scores, with_video)
