"""Posterior of a functional of speech: its draws, mean, intervals, Monte Carlo error."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.functionals import Axes, Functional, SpeechDraws
from avse_ppl.utils.plurals import name_count
from avse_ppl.utils.tables import format_facts, format_facts_html

if TYPE_CHECKING:
    from avse_ppl.posterior.posterior import Posterior

IntervalKind = Literal["equal-tailed", "hdi"]
_ELEMENTS = 20_000_000  # of the STFT of the draws that are evaluated at once: bounds the memory


@dataclass(frozen=True, eq=False, repr=False)
class FunctionalPosterior:
    """Posterior of a functional of speech, as draws.

    Where the functional is not defined for a draw (the F0 of unvoiced frames), the draw is NaN:
    means and intervals are those of the draws in which it is, ``defined`` is their share.

    Parameters
    ----------
    draws
        ``(chain, draw, recording, ...)``; NaN also pads shorter recordings.
    name, unit
        Of the functional.
    axes
        The axes behind the recording, each with its coordinates.
    kind
        Of the posterior over speech.
    exact_mean
        Posterior mean in closed form, ``(recording, ...)``; None where there is none.
    dependent
        Whether the draws are from Markov chains.
    """

    draws: np.ndarray
    name: str
    unit: str
    axes: Axes
    kind: Approximation
    exact_mean: np.ndarray | None = None
    dependent: bool = False

    def facts(self) -> dict[str, object]:
        """What it is of, for its ``repr``."""
        chains, draws, recordings, *shape = self.draws.shape
        facts: dict[str, object] = {
            "kind": self.kind,
            "draws": f"{name_count(chains, 'chain')} of {draws}",
            "recordings": recordings,
            "axes": ", ".join(f"{n} ({s})" for n, s in zip(self.axes, shape, strict=True)),
        }
        if not shape and chains * draws > 1:
            low, high = self.interval()
            rows = zip(self.mean, low, high, strict=True)
            facts["mean (90 % interval)"] = "; ".join(
                f"{m:.4g} ({a:.4g}, {b:.4g})" for m, a, b in rows
            )
        return facts

    def __repr__(self) -> str:
        return format_facts(f"{self.name}, {self.unit}" if self.unit else self.name, self.facts())

    def _repr_html_(self) -> str:
        return format_facts_html(self.name, self.facts())

    @property
    def defined(self) -> np.ndarray:
        """Share of the draws in which the functional is defined, ``(recording, ...)``."""
        return np.isfinite(self.draws).mean(axis=(0, 1))

    @property
    def mean(self) -> np.ndarray:
        """Posterior mean, ``(recording, ...)``; the closed form where there are no draws."""
        if self.exact_mean is not None and self.draws.shape[0] * self.draws.shape[1] == 0:
            return self.exact_mean
        known = np.isfinite(self.draws)
        count = known.sum(axis=(0, 1))
        total = np.where(known, self.draws, 0.0).sum(axis=(0, 1), dtype=float)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    @property
    def sd(self) -> np.ndarray:
        """Posterior standard deviation, ``(recording, ...)``; NaN of fewer than two draws."""
        known = np.isfinite(self.draws)
        count = known.sum(axis=(0, 1))
        gaps = np.where(known, self.draws - self.mean, 0.0)
        spread = np.sqrt(np.sum(gaps**2, axis=(0, 1), dtype=float) / np.maximum(count - 1, 1))
        return np.where(count > 1, spread, np.nan)

    @property
    def mcse(self) -> np.ndarray:
        """Monte Carlo standard error of the mean, ``(recording, ...)``.

        Of independent draws their standard deviation by the root of their number; of Markov chains
        by their effective sample size, as arviz has it. That of a probability that came out as 0 or
        1 is 0 only because too few draws were taken to see it differ.
        """
        if self.dependent and self.draws.shape[1] >= 4:
            import arviz

            data = self.wrap_draws()
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(arviz.mcse(data, method="mean")["x"].values, float)
        count = np.isfinite(self.draws).sum(axis=(0, 1))
        return self.sd / np.sqrt(np.maximum(count, 1))

    def interval(
        self, probability: float = 0.9, kind: IntervalKind = "equal-tailed"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Credible interval, lower and upper bounds ``(recording, ...)``.

        Parameters
        ----------
        probability
            Mass between the bounds.
        kind
            ``"equal-tailed"``: between quantiles, the k-th smallest of D draws standing for the
            mass ``k / (D + 1)``, as in `Posterior.interval`. ``"hdi"``: the shortest one (highest
            density interval, by arviz); a draw at its end counts as inside, so that it holds
            somewhat less than stated where there are few.

        Raises
        ------
        ValueError
            If the probability or the kind is none, or there are under 2 draws.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability must be between 0 and 1, not {probability}")
        if kind not in ("equal-tailed", "hdi"):
            raise ValueError(f"kind must be 'equal-tailed' or 'hdi', not {kind!r}")
        chains, draws = self.draws.shape[:2]
        if chains * draws < 2:
            raise ValueError(
                f"an interval needs at least 2 draws, this one is of {chains * draws}; run the "
                "inference with 50 waveform draws or more"
            )
        if kind == "hdi":
            return self.compute_hdi(probability)
        tail = (1 - probability) / 2
        flat = self.draws.reshape(chains * draws, -1)
        bounds = np.full((2, flat.shape[1]), np.nan)
        count = np.isfinite(flat).sum(axis=0)
        for n in np.unique(count[count > 1]):  # columns with the same number of draws together
            some = count == n
            values = np.sort(flat[:, some], axis=0)[:n]  # NaN are last
            bounds[:, some] = np.quantile(values, (tail, 1 - tail), axis=0, method="weibull")
        low, high = bounds.reshape(2, *self.draws.shape[2:])
        return low, high

    def compute_hdi(self, probability: float) -> tuple[np.ndarray, np.ndarray]:
        """Compute the highest density interval by arviz 0.2x or 1.x."""
        import arviz

        names = inspect.signature(arviz.hdi).parameters
        mass: dict[str, Any] = {"hdi_prob" if "hdi_prob" in names else "prob": probability}
        found: Any = arviz.hdi(self.wrap_draws(), skipna=True, **mass)
        bounds = np.moveaxis(np.asarray(found["x"].values, float), -1, 0)
        return bounds[0], bounds[1]

    def probability_above(self, threshold: float) -> np.ndarray:
        """Posterior probability that the functional exceeds a threshold, ``(recording, ...)``.

        Of the draws in which it is defined.
        """
        known = np.isfinite(self.draws).sum(axis=(0, 1))
        above = (self.draws > threshold).sum(axis=(0, 1))
        return np.where(known > 0, above / np.maximum(known, 1), np.nan)

    def wrap_draws(self) -> Any:
        """Draws as a dataset of arviz's dimensions, under the name ``x``."""
        import xarray

        axes = [f"axis_{i}" for i in range(self.draws.ndim - 2)]
        return xarray.Dataset({"x": (("chain", "draw", *axes), self.draws.astype(float))})

    def to_xarray(self) -> Any:
        """Draws as a dataset with named dimensions and coordinates, units in the attributes."""
        import xarray

        coords: dict[str, Any] = {
            "chain": np.arange(self.draws.shape[0]),
            "draw": np.arange(self.draws.shape[1]),
            "recording": np.arange(self.draws.shape[2]),
        }
        for axis, columns in self.axes.items():
            for name, values in columns.items():
                unit = name.rpartition("_")[2]
                attrs = {"units": {"hz": "Hz"}.get(unit, unit)} if unit in ("hz", "s") else {}
                coords[name] = (axis, values, attrs)
        dims = ("chain", "draw", "recording", *self.axes)
        attrs = {"units": self.unit, "kind": str(self.kind)}
        name = self.name.replace(" ", "_")
        return xarray.Dataset({name: (dims, self.draws, attrs)}, coords, {"kind": str(self.kind)})

    def to_arviz(self) -> Any:
        """Draws as the posterior group of arviz's inference data, for its plots and summaries."""
        import arviz

        if "InferenceData" in vars(arviz):
            return arviz.InferenceData(posterior=self.to_xarray())  # type: ignore[arg-type]
        import xarray

        return xarray.DataTree.from_dict({"/posterior": self.to_xarray()})


class UserFunctional(Functional):
    """A function of the user's own as a functional.

    Parameters
    ----------
    function
        Of ``(wave, rate_hz)``, or of ``(values, freq_hz, time_s)``.
    over
        ``"waveform"`` or ``"stft"``.
    vectorised
        Whether it takes many draws at once, along a first axis.
    name, unit
        For tables and datasets.
    """

    def __init__(
        self, function: Callable[..., Any], over: str, vectorised: bool, name: str, unit: str
    ) -> None:
        if over not in ("waveform", "stft"):
            raise ValueError(f"over must be 'waveform' or 'stft', not {over!r}")
        self.function, self.over, self.vectorised = function, over, vectorised
        self.name, self.unit = name, unit

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """Call the function, once or for each draw."""
        if self.over == "waveform":
            values, rest = draws.waves, (draws.rate_hz,)
        else:
            values, rest = draws.values, (draws.freq_hz, draws.time_s)
        if self.vectorised:
            return np.asarray(self.function(values, *rest))
        rows = [np.asarray(self.function(value, *rest)) for value in values]
        if len({row.shape for row in rows}) > 1:
            raise ValueError(
                f"{self.name} returned arrays of shape {rows[0].shape} for one draw and of another "
                "for the next; expected one shape for all draws (NaN where there is nothing)"
            )
        return np.stack(rows)

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """None that have a name: found when it is called."""
        return {}


def evaluate_functionals(
    posterior: Posterior, functionals: Sequence[Functional], draws: int | None = None
) -> list[FunctionalPosterior]:
    """Evaluate functionals on the waveform draws of all recordings.

    Some draws at a time, each transformed once for all functionals, which bounds the memory.

    Parameters
    ----------
    posterior
        Of one or several recordings.
    functionals
        What to evaluate.
    draws
        At most so many of each chain, evenly spaced; all by default.

    Raises
    ------
    ValueError
        If the posterior holds no waveform draws and a mean is not known without, or a function
        returns anything but one array of real numbers for each draw.
    """
    chains, count = posterior.speech.shape[:2]
    if draws is not None and draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    kept = min(count, draws or count)
    index = np.arange(kept) * count // max(kept, 1)
    ones = [posterior.select(r) for r in range(posterior.recordings)]
    means = [[f.compute_exact_mean(one) for one in ones] for f in functionals]
    if kept == 0 and any(mean[0] is None for mean in means):
        raise ValueError(
            "this posterior holds no waveform draws, of which a functional would be evaluated; "
            "make it again with draws (waveforms=True, or 'avse-ppl enhance --posterior'). Without "
            "them only functionals that are linear in the power of bins have a mean, such as "
            "Energy and BinPower"
        )
    rows: list[list[np.ndarray]] = [[] for _ in functionals]
    axes: list[list[Axes]] = [[] for _ in functionals]
    for one in ones:
        waves = one.speech[:, index, 0].reshape(chains * kept, one.n_samples[0])
        step = max(1, _ELEMENTS // one.mean[0].size)
        parts: list[list[np.ndarray]] = [[] for _ in functionals]
        for begin in range(0, len(waves), step):
            some = SpeechDraws(waves[begin : begin + step], one.mixture[0], one.stft)
            for part, functional in zip(parts, functionals, strict=True):
                part.append(check_values(functional, functional.evaluate(some), len(some.waves)))
        whole = SpeechDraws(one.noisy()[None], one.mixture[0], one.stft)
        for i, functional in enumerate(functionals):
            mean = functional.compute_exact_mean(one) if not parts[i] else None
            values = np.concatenate(parts[i]) if mean is None else np.zeros((0, *mean.shape))
            found = functional.list_axes(whole)
            for axis in range(len(found), values.ndim - 1):
                found[f"axis_{axis}"] = {}
            axes[i].append(found)
            rows[i].append(values.reshape(chains, kept, 1, *values.shape[1:]))
    dependent = bool(posterior.stats) or bool(posterior.diagnostics)
    return [
        FunctionalPosterior(
            draws=pad_recordings(rows[i], 2),
            name=functional.name,
            unit=functional.unit,
            axes=choose_longest(axes[i]),
            kind=posterior.kind,
            exact_mean=None if means[i][0] is None else pad_recordings(
                [np.asarray(mean)[None] for mean in means[i]], 0
            ),
            dependent=dependent,
        )
        for i, functional in enumerate(functionals)
    ]  # fmt: skip


def check_values(functional: Functional, values: Any, draws: int) -> np.ndarray:
    """Raise ``ValueError`` unless a functional returned real numbers for each of so many draws."""
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"{functional.name} returned values of type {values.dtype}; expected real numbers: of "
            "a complex one return its real and imaginary part, or its magnitude"
        )
    if values.ndim == 0 or len(values) != draws:
        raise ValueError(
            f"{functional.name} returned an array of shape {values.shape} for {draws} draws; "
            "expected the draws along its first axis (vectorised=False calls it for each draw)"
        )
    return values if values.dtype.kind == "f" else values.astype(np.float32)


def pad_recordings(rows: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Concatenate recordings along an axis, the axes behind it padded with NaN to the longest."""
    if len({row.ndim for row in rows}) > 1:
        raise ValueError(
            "the function returned arrays of a different number of axes for two recordings; "
            "expected the same for all"
        )
    longest = np.max([row.shape for row in rows], axis=0)
    longest[axis] = 1
    widths = [[(0, int(n)) for n in longest - row.shape] for row in rows]
    padded = [
        np.pad(row, width, constant_values=np.nan) for row, width in zip(rows, widths, strict=True)
    ]
    return np.concatenate(padded, axis=axis)


def choose_longest(axes: Sequence[Axes]) -> Axes:
    """Axes of the recording whose coordinates are the longest."""
    sizes = [sum(len(v) for columns in one.values() for v in columns.values()) for one in axes]
    return axes[int(np.argmax(sizes))]
