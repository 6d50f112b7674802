"""Fit of the weights with which predictions are combined, on speech and noise held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.predictors.combination import (
    Combination,
    describe_predictions,
    measure_power,
)
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.training.descent import descend
from avse_ppl.training.phases.predictor import compress

_STEPS, _CASES, _FRAMES = 1000, 4, 96
_LEARNING_RATE = 3e-3
_SAMPLED = 97  # of the bins, one in so many sets centre and spread of the features
_WEIGHTS = (0.05, 20.0, 8.0)  # of the terms of the loss, as in `PredictorRecipe`


class CombinationCase(NamedTuple):
    """A mixture, predictions of its speech, and the speech, in units of the mixture's scale.

    ``(1, freq, time)`` each, complex but for the mixture.
    """

    mixture: Spectrogram
    predictions: tuple[Tensor, ...]
    speech: Tensor


def fit_combination(
    cases: Sequence[CombinationCase],
    seed: int = 0,
    *,
    steps: int = _STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Combination:
    r"""Fit the weights of a combination by the loss that predictors are trained with.

    .. math:: L = -w\,\mathrm{SDR}(s, \hat s)
        + \left\| |S|^{.3} - |\hat S|^{.3} \right\|^2
        + \tfrac12 \left\| S |S|^{-.7} - \hat S |\hat S|^{-.7} \right\|^2

    Parameters
    ----------
    cases
        Mixtures of speech and noise that none of the predictors was trained on: a network is more
        often right on what it was trained on, and would be believed too far elsewhere.
    seed
        Of the weights and of the order of the cases.
    steps
        Gradient steps.
    progress
        Called with (step, steps).

    Raises
    ------
    ValueError
        If there are fewer than four cases.
    """
    if len(cases) < _CASES:
        raise ValueError(f"a combination needs {_CASES} mixtures or more; found {len(cases)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = Combination(len(cases[0].predictions), fitted=True)
    rng = np.random.default_rng(seed)
    # Logarithms and ratios, a gigabyte for a hundred mixtures: half the digits are enough.
    features = [describe_predictions(one.mixture, one.predictions).half() for one in cases]
    sampled = torch.cat([one.flatten(0, 2)[::_SAMPLED] for one in features]).float()
    found.centre.copy_(sampled.mean(0))
    found.spread.copy_(sampled.std(0) + 1e-3)

    def measure_step() -> Tensor:
        loss = torch.zeros(())
        for index in rng.integers(0, len(cases), _CASES):
            mixture, predictions, speech = cases[index]
            begin = int(rng.integers(0, max(1, speech.shape[-1] - _FRAMES)))
            part = slice(begin, begin + _FRAMES)
            combined = found.combine(
                features[index][:, :, part].float(),
                mixture.values[..., part],
                [one[..., part] for one in predictions],
            )
            loss = loss + measure_loss(combined, speech[..., part]) / _CASES
        return loss

    descend(found, measure_step, steps, _LEARNING_RATE, progress)
    return found.eval().requires_grad_(False)


def measure_loss(combined: Tensor, speech: Tensor) -> Tensor:
    """Loss of a combined prediction, ``(1, freq, time)`` each; pauses have no SDR."""
    energy = measure_power(speech).sum()
    error = measure_power(speech - combined).sum()
    sdr_db = 10 * torch.log10((energy + 1e-2) / (error + 1e-3 * energy + 1e-2))
    small, truth = compress(combined), compress(speech)
    magnitude = (small.abs() - truth.abs()).square().mean()
    both = measure_power(small - truth).mean()
    return -_WEIGHTS[0] * (energy > 1.0) * sdr_db + _WEIGHTS[1] * magnitude + _WEIGHTS[2] * both
