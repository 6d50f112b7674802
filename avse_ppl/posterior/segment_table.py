"""Tables of segments: means and intervals of functionals of speech in each word or turn."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from avse_ppl.posterior.functional_posterior import IntervalKind, evaluate_functionals
from avse_ppl.posterior.functionals import (
    F0,
    SNR,
    Energy,
    Exceeds,
    Functional,
    Level,
    Pairs,
    VoiceActivity,
)
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.segments import Segment, place_segments
from avse_ppl.utils.files import atomic_path
from avse_ppl.utils.plurals import name_count

DEFAULT_FUNCTIONALS = ("level", "snr", "voice-activity")
_CALL = re.compile(r"([a-z0-9-]+)(?:\((.*)\))?")
_BAND = re.compile(r"([0-9.]+)-([0-9.]+)")
_DIGITS = 6  # significant, in files

Maker = Callable[[Pairs | None, Pairs], Functional]
# Names on the command line; those that take a band, and how each is made.
MAKERS: Mapping[str, Maker] = MappingProxyType(
    {"level": Level, "energy": Energy, "snr": SNR, "exceeds": Exceeds}
)
VOICES: Mapping[str, Callable[[Pairs], Functional]] = MappingProxyType(
    {"voice-activity": VoiceActivity, "f0": F0}
)


@dataclass(frozen=True)
class SegmentRow:
    """Posterior of one functional of the speech in one segment.

    Parameters
    ----------
    recording, tier, name, start_s, end_s
        The segment.
    functional, unit
        What was computed of it.
    mean, sd, low, high, mcse
        Posterior mean and standard deviation, bounds of the interval, Monte Carlo standard error of
        the mean; NaN where no draw defines it, such as the F0 of a segment without voice.
    defined
        Share of the draws in which it is defined.
    """

    recording: int
    tier: str
    name: str
    start_s: float
    end_s: float
    functional: str
    unit: str
    mean: float
    sd: float
    low: float
    high: float
    mcse: float
    defined: float


COLUMNS = tuple(field.name for field in fields(SegmentRow))


def make_functional(text: str, spans_s: Pairs) -> Functional:
    """Make a functional of spans by its name: ``level``, ``snr(300-3000)``, ``exceeds(-40)``.

    Parameters
    ----------
    text
        ``level``, ``energy`` or ``snr``, each with a band in hertz if wanted; ``exceeds`` with a
        threshold in decibels re full scale, and a band if wanted (``exceeds(-40, 300-3000)``);
        ``voice-activity`` or ``f0``.
    spans_s
        Begin and end of each.

    Raises
    ------
    ValueError
        If there is no such functional, or it takes no such arguments.

    Examples
    --------
    >>> make_functional("snr(300-3000)", ((0.0, 0.5),)).bands_hz
    ((300.0, 3000.0),)
    """
    parsed = _CALL.fullmatch(text.strip())
    name, inside = parsed.groups() if parsed else ("", None)
    arguments = [] if not inside else [part.strip() for part in inside.split(",")]
    if name in VOICES and not arguments:
        return VOICES[name](spans_s)
    options: dict[str, Any] = {}
    if name == "exceeds" and arguments:
        options["threshold_db"] = _parse_float(arguments.pop(0))
    band = _BAND.fullmatch(arguments[0]) if len(arguments) == 1 else None
    bands = None if band is None else ((_parse_float(band[1]), _parse_float(band[2])),)
    complete = name != "exceeds" or options.get("threshold_db") is not None
    if name not in MAKERS or not complete or (arguments and (bands is None or None in bands[0])):
        raise ValueError(
            f"no functional {text!r}; expected level, snr or energy, perhaps in a band of hertz as "
            "in 'level(300-3000)', exceeds(THRESHOLD_DB) as in 'exceeds(-40)' or "
            "'exceeds(-40, 300-3000)', voice-activity, or f0"
        )
    return MAKERS[name](bands, spans_s, **options)  # type: ignore[arg-type]


def _parse_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def summarise_segments(
    posterior: Posterior,
    segments: Sequence[Segment],
    functionals: Sequence[str] = DEFAULT_FUNCTIONALS,
    *,
    probability: float = 0.9,
    interval: IntervalKind = "equal-tailed",
) -> list[SegmentRow]:
    """Means and credible intervals of functionals of the speech in each segment.

    Parameters
    ----------
    posterior
        With waveform draws, of one or several recordings.
    segments
        From `avse_ppl.signal.segments.read_segments`, or made by hand.
    functionals
        Names, see `make_functional`.
    probability, interval
        Mass and kind of the intervals.

    Returns
    -------
    list of SegmentRow
        A row for each recording, segment and functional.

    Raises
    ------
    ValueError
        If there are no segments, one is outside of its recording, a functional is none, or the
        posterior holds fewer than two waveform draws.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> posterior = SVI(steps=5, draws=20)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> words = [Segment("one", 0.1, 0.2), Segment("two", 0.2, 0.4)]
    >>> [row] = summarise_segments(posterior, words[:1], ["level(300-3000)"])
    >>> row.name, row.unit, row.low < row.mean < row.high
    ('one', 'dB', True)
    """
    # All checks first.
    check_drawn(posterior)
    if not segments:
        raise ValueError("there are no segments to summarise; give at least one")
    if not functionals:
        raise ValueError("there are no functionals to summarise segments by; give at least one")
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, not {probability}")
    rate_hz = posterior.stft.sample_rate_hz
    rows = place_segments(segments, [n / rate_hz for n in posterior.n_samples])
    for name in functionals:
        check_band(make_functional(name, ()), posterior)

    table = []
    for recording, row in enumerate(rows):
        if not row:
            continue
        spans = tuple((segment.start_s, segment.end_s) for segment in row)
        made = [make_functional(name, spans) for name in functionals]
        found = evaluate_functionals(posterior.select(recording), made)
        columns = []
        for one in found:
            low, high = one.interval(probability, interval)
            values = (one.mean, one.sd, low, high, one.mcse, one.defined)
            columns.append([value.reshape(len(row)) for value in values])
        for i, segment in enumerate(row):
            for name, functional, values in zip(functionals, made, columns, strict=True):
                figures = [float(value[i]) for value in values]
                place = (recording, segment.tier, segment.name, segment.start_s, segment.end_s)
                table.append(SegmentRow(*place, name, functional.unit, *figures))
    return table


def check_drawn(posterior: Posterior) -> None:
    """Raise ``ValueError`` unless a posterior holds two waveform draws."""
    draws = posterior.speech.shape[0] * posterior.speech.shape[1]
    if draws < 2:
        raise ValueError(
            f"the posterior holds {name_count(draws, 'waveform draw')}; means and intervals of "
            "segments need at least 2, better 50: make it again by 'avse-ppl enhance NOISY.wav -o "
            "OUT.wav --posterior POSTERIOR.nc --draws 50'"
        )


def check_band(functional: Functional, posterior: Posterior) -> None:
    """Raise ``ValueError`` if a band holds no bin."""
    from avse_ppl.posterior.functionals import weigh_bands

    weigh_bands(getattr(functional, "bands_hz", None), posterior.stft)


def write_table(rows: Sequence[SegmentRow], path: str | Path) -> Path:
    """Write a table as CSV, atomically; what is not defined is left empty."""
    path = Path(path)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([format_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return path


def format_cell(value: Any) -> str:
    """Cell of a table: numbers to six digits, nothing for NaN."""
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else f"{value:.{_DIGITS}g}"
