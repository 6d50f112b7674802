"""Combination of predictors: one prediction from several, weighed bin by bin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.predictors.checks import guard_enhancer
from avse_ppl.models.predictors.error_law import (
    LAWS,
    load_tensors,
    make_features,
    smooth,
    write_files,
)
from avse_ppl.models.predictors.predictor import Predictor, have_same_weights
from avse_ppl.signal.speed import fit_length
from avse_ppl.signal.stft import Spectrogram, Stft
from avse_ppl.utils.files import read_json

JOINED = "+"  # between the names of the predictors that are combined
_FLOOR = 1e-5  # of powers, where a mixture has a mean of 1
_FEATURES, _SHARED = 16, 4
_HIDDEN = 48
# Lambda where predictions agree and where they do not, and the correlations from which on they do;
# chosen on the mixtures of docs/results/bridge.md.
_SHRINKAGE, _AGREEMENT = (0.75, 0.25), (0.9, 0.7)


class Combination(nn.Module):
    r"""Weighted sum of predictions and of the mixture, with weights for each bin (stacking).

    .. math:: \hat s_{ft} = \lambda \hat s_{1ft} + (1 - \lambda)
        \left[\sum_k w_{kft} \hat s_{kft} + w_{0ft} x_{ft}\right], \quad w = h(\phi)

    with :math:`\phi` the features of the mixture and of each prediction that its error law has too,
    see `ErrorLaw`, and how far the predictions differ. The network h is fitted to speech and noise
    that no predictor was trained on, see
    `avse_ppl.training.phases.combination.fit_combination`. They are of the corpora of that fit, and
    other speech and noise differ more: the weights are therefore shrunk towards the first
    predictor. Where the predictions of a recording agree, which weights are right is little seen,
    and :math:`\lambda = 3/4`; where they are less correlated than .9 one of them has failed, and
    it falls, to 1/4 at .7. Without a network the sum is the mean.

    Parameters
    ----------
    predictors
        How many predictions there are.
    fitted
        Whether the network is there.

    References
    ----------
    Wolpert, "Stacked generalization", Neural Networks 1992. Breiman, "Stacked regressions", Machine
    Learning 1996.

    Examples
    --------
    >>> mixture = Stft().analyse(torch.randn(4000).numpy())
    >>> predictions = [mixture.values, 0.5 * mixture.values]
    >>> found = Combination(2)(mixture, predictions)
    >>> bool(torch.allclose(found, 0.75 * mixture.values))
    True
    """

    def __init__(self, predictors: int, fitted: bool = False) -> None:
        super().__init__()
        if predictors < 2:
            raise ValueError(f"found {predictors} predictor; expected two or more to combine")
        self.predictors, self.fitted = predictors, fitted
        self.network: nn.Sequential | None = None
        if fitted:
            features = _FEATURES * predictors + _SHARED
            last = nn.Linear(_HIDDEN, predictors + 1)
            with torch.no_grad():  # start at the mean
                last.weight.mul_(0.1)
                last.bias.fill_(1.0 / predictors)
                last.bias[-1] = 0.0
            self.network = nn.Sequential(
                nn.Linear(features, _HIDDEN), nn.SiLU(),
                nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(), last,
            )  # fmt: skip
            self.centre: Tensor
            self.spread: Tensor
            self.register_buffer("centre", torch.zeros(features))
            self.register_buffer("spread", torch.ones(features))

    def forward(self, mixture: Spectrogram, predictions: Sequence[Tensor]) -> Tensor:
        """Combined prediction of predictions ``(recording, freq, time)``, complex."""
        if self.network is None:
            return torch.stack(list(predictions)).mean(0)
        features = describe_predictions(mixture, predictions)
        weighed = self.combine(features, mixture.values, predictions)
        shrinkage = choose_shrinkage(predictions)[:, None, None]
        return shrinkage * predictions[0] + (1.0 - shrinkage) * weighed

    def combine(self, features: Tensor, mixture: Tensor, predictions: Sequence[Tensor]) -> Tensor:
        """Sum with the fitted weights, given features ``(recording, freq, time, feature)``."""
        weights: Any = self.network((features - self.centre) / self.spread)  # type: ignore[misc]
        return (weights * torch.stack([*predictions, mixture], -1)).sum(-1)

    def save(self, folder: str | Path) -> Path:
        """Write ``combination.safetensors`` and ``combination.json`` into a folder."""
        from safetensors.torch import save

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        text = {"predictors": self.predictors, "fitted": self.fitted, "stft": asdict(Stft())}
        files = {
            "combination.safetensors": save(tensors),
            "combination.json": f"{json.dumps(text, indent=2)}\n".encode(),
        }
        return write_files(folder, files)


@dataclass(frozen=True)
class CombinedEnhancer:
    """Enhancer that combines what several predictors make of a mixture.

    Parameters
    ----------
    parts
        Two predictors or more. Those that use lips are of one visual encoder.
    combination
        Their weights.
    stft
        Front end of the weights.

    Examples
    --------
    >>> halve = Predictor(lambda wave, rate_hz: 0.5 * wave, name="halve")
    >>> keep = Predictor(lambda wave, rate_hz: wave, name="keep")
    >>> both = CombinedEnhancer((halve, keep), Combination(2))
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> bool(np.allclose(both(wave, 16000), 0.75 * wave, atol=1e-4))
    True
    """

    parts: tuple[Predictor, ...]
    combination: Combination
    stft: Stft = field(default_factory=Stft)

    def __post_init__(self) -> None:
        encoders = self.list_visual_encoders()
        if not all(have_same_weights(encoders[0], other) for other in encoders[1:]):
            raise ValueError(
                "the predictors that are combined look by different visual encoders; expected one "
                "for all, since they are shown the same features"
            )

    @property
    def uses_lips(self) -> bool:
        """Whether visual features change what one of the predictors answers."""
        return any(part.uses_lips for part in self.parts)

    @property
    def visual_encoder(self) -> LipEncoder | None:
        """Visual encoder of the predictors that use lips."""
        return next(iter(self.list_visual_encoders()), None)

    def list_visual_encoders(self) -> list[LipEncoder]:
        """List the visual encoders of the predictors that use lips."""
        enhancers: list[Any] = [part.enhance for part in self.parts if part.uses_lips]
        return [one.visual_encoder for one in enhancers]

    def __call__(
        self, wave: np.ndarray, sample_rate_hz: int, visual: Tensor | None = None
    ) -> np.ndarray:
        """Speech ``(sample,)`` in a mixture ``(sample,)``.

        ``visual``, ``(1 + feature, time)``, are visual features for the predictors that use lips,
        see `NetworkPredictor`.

        Raises
        ------
        PredictorError
            If one of the predictors fails.
        """
        import soxr

        rate_hz = self.stft.sample_rate_hz
        own = soxr.resample(np.asarray(wave, np.float32), sample_rate_hz, rate_hz)
        if not own.any():
            return np.zeros_like(wave)
        mixture = self.stft.analyse(own)
        predictions = []
        for part in self.parts:
            given: Any = {"visual": visual} if part.uses_lips and visual is not None else {}
            found = guard_enhancer(part.enhance, part.name)(own, rate_hz, **given)
            predictions.append(self.analyse(found, mixture))
        with torch.no_grad():
            found = self.combination(mixture, predictions) * mixture.scale[:, None, None]
        found = self.stft.inverse(found[0], len(own)).numpy()
        found = soxr.resample(found, rate_hz, sample_rate_hz)
        return fit_length(found, len(wave))

    def analyse(self, wave: np.ndarray, mixture: Spectrogram) -> Tensor:
        """STFT of a prediction, ``(1, freq, time)``, in units of the mixture's scale."""
        values = self.stft.forward(torch.from_numpy(wave).to(mixture.scale))
        return values[None] / mixture.scale[:, None, None]


def describe_predictions(mixture: Spectrogram, predictions: Sequence[Tensor]) -> Tensor:
    """Features of each bin, ``(recording, freq, time, feature)``, for the weights.

    Those of each prediction, and for all: the variance between them in the bin, around it and over
    time, and the correlation of the first with the mean of the others.
    """
    own = [make_features(mixture.values, one, mixture.stft) for one in predictions]
    mean = torch.stack(list(predictions)).mean(0)
    apart = torch.stack([measure_power(one - mean) for one in predictions]).sum(0)
    first, others = split_first(predictions)
    product = smooth((first * others.conj()).real, 5, 5)
    power = smooth(measure_power(first), 5, 5) * smooth(measure_power(others), 5, 5)
    shared = [
        0.25 * (power + _FLOOR).log()
        for power in (apart, smooth(apart, 5, 3), smooth(apart, 1, 15))
    ]
    shared.append(product / (power.sqrt() + _FLOOR))
    return torch.cat([*own, torch.stack(shared, -1)], -1)


def choose_shrinkage(predictions: Sequence[Tensor]) -> Tensor:
    """Weight of the first prediction beside the fitted sum, ``(recording,)``, by their agreement.

    Examples
    --------
    >>> one = torch.randn(1, 5, 7, dtype=torch.complex64)
    >>> choose_shrinkage([one, 0.5 * one]), choose_shrinkage([one, -one])
    (tensor([0.7500]), tensor([0.2500]))
    """
    first, others = split_first(predictions)
    product = (first * others.conj()).real.sum((1, 2))
    power = measure_power(first).sum((1, 2)) * measure_power(others).sum((1, 2))
    correlation = product / (power.sqrt() + _FLOOR)
    agreeing, apart = _AGREEMENT
    share = ((correlation - apart) / (agreeing - apart)).clamp(0.0, 1.0)
    return _SHRINKAGE[1] + (_SHRINKAGE[0] - _SHRINKAGE[1]) * share


def split_first(predictions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """First of several predictions, and the mean of the others."""
    return predictions[0], torch.stack(list(predictions[1:])).mean(0)


def measure_power(values: Tensor) -> Tensor:
    """Power of complex values."""
    return values.real.square() + values.imag.square()


def load_combination(name: str | Path) -> Combination:
    """Load a combination: the name of a shipped one, or a folder that ``save`` has written.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file is damaged.
    """
    folder = LAWS / str(name) if has_shipped_combination(str(name)) else Path(name)
    if not (folder / "combination.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no combination.json; expected a folder written by 'avse-ppl "
            "predictors fit'"
        )
    config = read_json(folder / "combination.json", "combination of predictors of this library")
    try:
        found = Combination(int(config["predictors"]), bool(config["fitted"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'combination.json'} is not of this library: {error!r}"
        ) from None
    load_tensors(found, folder / "combination.safetensors", "a combination of predictors")
    return found


def has_shipped_combination(name: str) -> bool:
    """Whether the library ships a combination of that name, as of ``deepfilternet+predictor``.

    Examples
    --------
    >>> has_shipped_combination("predictor")
    False
    """
    return (LAWS / name / "combination.json").is_file()
