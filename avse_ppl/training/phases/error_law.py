"""Fit of a predictor's error law to simulated mixtures, failures of all kinds among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.predictors.error_law import ErrorLaw, compute_base, make_features
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.training.descent import descend

_STEPS, _CASES, _FRAMES = 600, 4, 64
_LEARNING_RATE = 5e-3
_FAILED = 0.35  # share of the cases in which the prediction is none of this mixture
_LOWEST_HZ = 60.0  # below, corpora were filtered
_DELAY_FRAMES = 2
_SAMPLED = 37  # of the bins, one in so many sets centre and spread of the features

Case = tuple[Spectrogram, Tensor, Tensor]


def fit_error_law(
    cases: Sequence[Case],
    seed: int = 0,
    *,
    steps: int = _STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> ErrorLaw:
    r"""Fit the power of the error by maximum likelihood, :math:`s \sim N_c(\hat s, E)`.

    In a third of the steps a prediction is replaced by one that has failed: white noise, silence,
    the mixture itself, the prediction of another recording, or its own a few frames late, so that
    the law knows these when it sees them.

    Parameters
    ----------
    cases
        Mixture, prediction and speech, each of one recording: ``(1, freq, time)`` in units of the
        mixture's scale.
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
        raise ValueError(f"an error law needs {_CASES} mixtures or more; found {len(cases)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        law = ErrorLaw(fitted=True)
    rng = np.random.default_rng(seed)
    sampled = [make_features(m.values, p, m.stft).flatten(0, 2)[::_SAMPLED] for m, p, _ in cases]
    law.centre.copy_(torch.cat(sampled).mean(0))
    law.spread.copy_(torch.cat(sampled).std(0) + 1e-3)

    def measure_step() -> Tensor:
        loss = torch.zeros(())
        for index in rng.integers(0, len(cases), _CASES):
            mixture, predicted, speech = cases[index]
            if rng.random() < _FAILED:
                other = cases[int(rng.integers(0, len(cases)))][1]
                predicted = make_failure(mixture, predicted, other, rng)
            features = make_features(mixture.values, predicted, mixture.stft)
            begin = int(rng.integers(0, max(1, features.shape[2] - _FRAMES)))
            part = slice(begin, begin + _FRAMES)
            off: Tensor = law.network((features[:, :, part] - law.centre) / law.spread)[..., 0]  # type: ignore[misc]
            log_error = compute_base(features[:, :, part]) + off
            error = speech[..., part] - predicted[..., part]
            squared = error.real.square() + error.imag.square()
            above = int(_LOWEST_HZ * mixture.stft.n_fft / mixture.stft.sample_rate_hz) + 1
            terms = log_error + (squared + 1e-7) * torch.exp(-log_error)
            loss = loss + terms[:, above:].mean() / _CASES
        return loss

    descend(law, measure_step, steps, _LEARNING_RATE, progress)
    return law.eval().requires_grad_(False)


def make_failure(
    mixture: Spectrogram, predicted: Tensor, other: Tensor, rng: np.random.Generator
) -> Tensor:
    """Make a prediction that has failed, ``(1, freq, time)``."""
    kind = rng.integers(6)
    level = float(10 ** (rng.uniform(-20.0, 3.0) / 20))
    if kind == 0:
        white = rng.standard_normal((2, *predicted.shape)).astype(np.float32) * np.float32(
            np.sqrt(0.5)
        )
        return torch.complex(*torch.from_numpy(white)) * level
    if kind == 1:
        return predicted * 1e-4
    if kind == 2:
        return mixture.values.clone()
    if kind == 3:
        return predicted.roll(int(rng.integers(1, _DELAY_FRAMES + 1)), -1)
    if kind == 4:
        share = float(rng.uniform(0.3, 0.9))  # nearly the mixture
        return share * mixture.values + (1.0 - share) * predicted
    time = predicted.shape[-1]
    repeats = -(-time // other.shape[-1])
    return other.repeat(1, 1, repeats)[..., :time].roll(int(rng.integers(time)), -1)
