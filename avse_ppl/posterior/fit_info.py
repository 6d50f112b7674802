"""Facts about the inference of each recording: seed, warnings, diagnostics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Names in the attributes of a file, and of the fields.
_COLUMNS = {
    "seeds": "seed",
    "k_hat": "k_hat",
    "elbo_rise": "elbo_rise",
    "diagnostics": "chain_figures",
}


@dataclass(frozen=True)
class FitInfo:
    """Facts about the inference of one recording.

    Parameters
    ----------
    seed
        Seed with which the recording alone gives the same result.
    warnings
        Reasons to distrust the result, in words; empty if there are none.
    k_hat
        Shape of the tail of the importance ratios of a variational guide; see `SVI`.
    elbo_rise
        By how many nats the evidence lower bound still rose at the end of the optimisation.
    chain_figures
        R-hat, effective sample sizes, divergences and energy of Markov chains; see
        ``avse_ppl.evaluation.diagnostics.chain_figures``.

    Examples
    --------
    >>> FitInfo(seed=3, k_hat=0.4).warnings
    ()
    """

    seed: int | None = None
    warnings: tuple[str, ...] = ()
    k_hat: float | None = None
    elbo_rise: float | None = None
    chain_figures: dict[str, Any] | None = None

    def merge(self, other: FitInfo) -> FitInfo:
        """Facts of both: warnings of one after the other, figures of the other where it has some.

        Examples
        --------
        >>> FitInfo(seed=1, warnings=("a",)).merge(FitInfo(k_hat=0.9, warnings=("b",)))
        FitInfo(seed=1, warnings=('a', 'b'), k_hat=0.9, elbo_rise=None, chain_figures=None)
        """
        figures = {
            name: getattr(other, name)
            for name in _COLUMNS.values()
            if getattr(other, name) is not None
        }
        return replace(self, warnings=(*self.warnings, *other.warnings), **figures)


def merge_rows(one: Sequence[FitInfo], other: Sequence[FitInfo]) -> tuple[FitInfo, ...]:
    """Merge the facts of each recording; an empty sequence has none.

    Examples
    --------
    >>> [info.k_hat for info in merge_rows([FitInfo(), FitInfo()], [FitInfo(k_hat=0.1), FitInfo()])]
    [0.1, None]
    """
    if not one or not other:
        return tuple(one or other)
    return tuple(a.merge(b) for a, b in zip(one, other, strict=True))


def combine_chunks(rows: Sequence[FitInfo]) -> FitInfo:
    """Facts about a recording from those of its chunks: warnings of all, the worst figures.

    Figures of chains stay behind, as each chunk has its own latents.

    Examples
    --------
    >>> info = combine_chunks([FitInfo(k_hat=0.2, warnings=("far",)), FitInfo(k_hat=0.9)])
    >>> info.k_hat, info.warnings
    (0.9, ('far',))
    """
    worst = {
        name: max((v for row in rows if (v := getattr(row, name)) is not None), default=None)
        for name in ("k_hat", "elbo_rise")
    }
    texts = dict.fromkeys(text for row in rows for text in row.warnings)
    return FitInfo(rows[0].seed, tuple(texts), **worst)


def fit_to_attrs(fit: Sequence[FitInfo]) -> dict[str, list[Any]]:
    """Facts as lists with an entry for each recording, as a file of format 1 keeps them.

    Examples
    --------
    >>> fit_to_attrs([FitInfo(k_hat=0.4), FitInfo(k_hat=0.9, warnings=("far",))])
    {'warnings': [[], ['far']], 'k_hat': [0.4, 0.9]}
    """
    lists: dict[str, list[Any]] = {"warnings": [list(info.warnings) for info in fit]}
    for key, name in _COLUMNS.items():
        values = [getattr(info, name) for info in fit]
        if any(value is not None for value in values):
            lists[key] = values
    return lists


def fit_from_attrs(
    attrs: Mapping[str, Any], recordings: int
) -> tuple[dict[str, Any], tuple[FitInfo, ...]]:
    """Settings, and facts about each recording, from the attributes of a file of format 1.

    Examples
    --------
    >>> settings, fit = fit_from_attrs({"routine": "svi", "seed": 5, "k_hat": [0.4, 0.9]}, 2)
    >>> settings, [info.seed for info in fit], fit[1].k_hat
    ({'routine': 'svi', 'seed': 5}, [5, 6], 0.9)
    """
    settings = {key: value for key, value in attrs.items() if key not in ("warnings", *_COLUMNS)}
    seeds = [seed_of_recording(attrs.get("seed"), r) for r in range(recordings)]
    columns = {name: attrs.get(key) or [None] * recordings for key, name in _COLUMNS.items()}
    columns["seed"] = attrs.get("seeds") or seeds
    warnings = attrs.get("warnings") or [()] * recordings
    return settings, tuple(
        FitInfo(
            warnings=tuple(warnings[r]), **{name: column[r] for name, column in columns.items()}
        )
        for r in range(recordings)
    )


def seed_of_recording(seed: Any, recording: int) -> int | None:
    """Seed of one recording of a batch: its own, or the batch's and its number.

    Examples
    --------
    >>> seed_of_recording(3, 2), seed_of_recording([7, 5], 1), seed_of_recording(None, 0)
    (5, 5, None)
    """
    if seed is None:
        return None
    return int(seed[recording]) if not isinstance(seed, int) else seed + recording
