"""Mixtures with what an enhancer makes of them, kept one by one so that a long run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avse_ppl.data.array_files import read_npz
from avse_ppl.models.predictors.checks import PredictorError, guard_enhancer
from avse_ppl.models.predictors.combination import Combination
from avse_ppl.models.predictors.error_law import ErrorLaw
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.speech_crops import Crop, MixtureCrops
from avse_ppl.training.phases.combination import CombinationCase
from avse_ppl.training.phases.error_law import Case
from avse_ppl.utils.files import atomic_path

_RMS = 0.1  # of the mixtures: enhancers expect waveforms with a peak of about 1
_QUIETEST = 1e-3  # RMS of speech of unit active power, below which a crop is a pause
_ATTEMPTS = 50
_FAILED = 0.1  # share of the predictions that may fail
_LOWEST_HZ = 60.0  # below, corpora were filtered


class PredictedMixture(NamedTuple):
    """A mixture, what an enhancer made of it, and the speech in it: ``(sample,)`` each, float32."""

    mixture: np.ndarray
    predicted: np.ndarray
    speech: np.ndarray


def predict_mixtures(
    predictor: Predictor,
    crops: MixtureCrops,
    count: int,
    seed: int,
    folder: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[PredictedMixture], list[str]]:
    """Let an enhancer predict the speech in mixtures of a corpus.

    Each mixture has a seed of its own and is kept as ``folder/0000.npz``, so that another call goes
    on from there, also to a larger number of them.

    Parameters
    ----------
    predictor
        The enhancer.
    crops
        What mixtures are drawn from.
    count
        How many.
    seed
        Of the mixtures.
    folder
        Where they are kept; it exists.
    settings
        What else the mixtures and predictions depend on; those kept under others are made again.
    progress
        Called with (mixtures done, count).

    Returns
    -------
    list of PredictedMixture, list of str
        The mixtures, and why the predictions of others failed, which are left out.

    Raises
    ------
    PredictorError
        If the first prediction fails, or more than a tenth of all.
    ValueError
        If the corpus holds pauses only.
    """
    found: list[PredictedMixture] = []
    failures: list[str] = []
    rate_hz = crops.cache.sample_rate_hz
    enhance = guard_enhancer(predictor.enhance, predictor.name)
    for index in range(count):
        key = repr(sorted({**(settings or {}), "seed": seed, "index": index}.items()))
        place = folder / f"{index:04d}.npz"
        one = read_prediction(place, key, crops.crop)
        if one is None:
            mixture, speech = draw_mixture(crops, seed, index)
            try:
                predicted = enhance(mixture, rate_hz)
            except PredictorError as error:
                failures.append(str(error))
                if not found or len(failures) > _FAILED * count:
                    raise
            else:
                one = PredictedMixture(mixture, predicted, speech)
                with atomic_path(place) as temporary, temporary.open("wb") as file:
                    np.savez(file, key=np.array(key), **one._asdict())
        if one is not None:
            found.append(one)
        if progress is not None:
            progress(index + 1, count)
    return found, failures


def read_prediction(place: Path, key: str, samples: int) -> PredictedMixture | None:
    """Read what was kept of a mixture; None if there is nothing, or it is damaged or another's."""
    stored = read_npz(place) if place.is_file() else None
    if stored is None or str(stored.get("key")) != key:
        return None
    waves = [stored.get(name) for name in PredictedMixture._fields]
    whole = [wave for wave in waves if wave is not None and wave.shape == (samples,)]
    return PredictedMixture(*whole) if len(whole) == len(waves) else None


def draw_mixture(crops: MixtureCrops, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw mixture and speech, ``(sample,)`` each, the mixture of RMS 0.1.

    Raises
    ------
    ValueError
        If all that was drawn are pauses.
    """
    rng = np.random.default_rng([seed, index])
    for _ in range(_ATTEMPTS):
        which = Crop(int(rng.integers(len(crops))), rng.random(), seed=int(rng.integers(2**31)))
        speech, noise = crops[which].numpy()
        if measure_rms(speech) > _QUIETEST:
            gain = np.float32(_RMS / measure_rms(speech + noise))
            return gain * (speech + noise), gain * speech
    raise ValueError(
        f"{_ATTEMPTS} crops of the corpus were silent; expected clips of speech for training"
    )


def measure_rms(wave: np.ndarray) -> float:
    """Root of the mean square of a waveform."""
    return math.sqrt(float(np.mean(np.square(wave, dtype=np.float64))))


def make_case(one: PredictedMixture, stft: Stft) -> Case:
    """Make a case for `fit_error_law`: STFTs of ``(1, freq, time)`` in units of the mixture.

    Examples
    --------
    >>> wave = np.ones(2000, "float32")
    >>> case = make_case(PredictedMixture(wave, 0.5 * wave, wave), Stft())
    >>> bool(torch.allclose(case[1], 0.5 * case[2]))
    True
    """
    mixture = stft.analyse(one.mixture)
    predicted, speech = (
        stft.forward(torch.from_numpy(wave))[None] / mixture.scale[:, None, None]
        for wave in (one.predicted, one.speech)
    )
    return mixture, predicted, speech


def combine_predictions(
    rows: Sequence[Sequence[PredictedMixture]], stft: Stft
) -> tuple[list[CombinationCase], Callable[[Combination], list[PredictedMixture]]]:
    """Cases for `fit_combination`, and what makes the mixtures of the combined predictions.

    Parameters
    ----------
    rows
        Of each predictor, the same mixtures; those that one of them lacks are left out.
    stft
        Front end of the combination.

    Examples
    --------
    >>> wave = np.random.default_rng(0).normal(size=2000).astype("float32")
    >>> rows = [[PredictedMixture(wave, gain * wave, wave)] for gain in (0.4, 0.6)]
    >>> cases, finish = combine_predictions(rows, Stft())
    >>> combined = finish(Combination(2))[0].predicted
    >>> bool(np.allclose(combined, 0.5 * wave, atol=1e-5))
    True
    """
    tables = [{one.mixture.tobytes(): one for one in row} for row in rows]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    cases = []
    for key in shared:
        each = [make_case(table[key], stft) for table in tables]
        cases.append(CombinationCase(each[0][0], tuple(case[1] for case in each), each[0][2]))

    def finish(weights: Combination) -> list[PredictedMixture]:
        found = []
        for key, case in zip(shared, cases, strict=True):
            one = tables[0][key]
            with torch.no_grad():
                combined = weights(case.mixture, case.predictions)
            combined = combined * case.mixture.scale[:, None, None]
            wave = stft.inverse(combined[0], len(one.mixture)).numpy()
            found.append(one._replace(predicted=wave))
        return found

    return cases, finish


def measure_coverage(law: ErrorLaw, cases: list[Case], level: float = 0.9) -> float:
    r"""Share of the bins whose speech lies in the region that the law states for it.

    The region of :math:`s \sim N_c(\hat s, E)` is the disc :math:`|s - \hat s|^2 \le -E \log(1 -
    \text{level})`. Bins below 60 Hz, where corpora were filtered, do not count.

    Raises
    ------
    ValueError
        If there is no case.
    """
    if not cases:
        raise ValueError("coverage needs a mixture or more; found none")
    inside = []
    for mixture, predicted, speech in cases:
        above = int(_LOWEST_HZ * mixture.stft.n_fft / mixture.stft.sample_rate_hz) + 1
        with torch.no_grad():
            radius = -math.log1p(-level) * law(mixture, predicted).exp()
        error = speech - predicted
        held = error.real.square() + error.imag.square() <= radius
        inside.append(float(held[:, above:].double().mean()))
    return sum(inside) / len(inside)
