"""Rows of a dataset, as of Hugging Face's ``datasets``: recordings in, enhanced recordings out.

A row is a mapping whose column ``audio`` holds a decoded recording, ``{"array", "sampling_rate",
"path"}``, or a path. Nothing of that package is imported.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avse_ppl.models.protocols import is_audio_visual
from avse_ppl.pipeline.batching import BATCH_S
from avse_ppl.pipeline.catalog import resolve_speech
from avse_ppl.pipeline.corpus_manifest import AUDIO_FIELDS, read_corpus_manifest
from avse_ppl.pipeline.enhance import Enhanced, Enhancer
from avse_ppl.pipeline.enhance_jobs import collect_warnings
from avse_ppl.pipeline.inputs import Observation, VideoOptions, observe
from avse_ppl.pipeline.spans import SpanReader
from avse_ppl.signal.audio import Audio, as_audio

AUDIO = "audio"
Row = Mapping[str, Any]
Span = tuple[float, float | None]  # begin and duration, seconds


def read_row_audio(value: Any) -> Audio | str:
    """Recording in the column ``audio`` of a row, decoded; a path stays one.

    Parameters
    ----------
    value
        ``{"array", "sampling_rate"}``, what is asked for them in the same way (a decoder), the
        undecoded ``{"bytes", "path"}``, a path, or an ``Audio``.

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> read_row_audio({"array": [0.0] * 8000, "sampling_rate": 16000, "path": None}).duration_s
    0.5
    """
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if isinstance(value, Audio):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return as_audio(value)
    try:
        if isinstance(value, Mapping) and value.get("array") is None:
            given = value.get("bytes") or value.get("path")
            if given is not None:
                return read_row_audio(given)
        samples, rate_hz = value["array"], value["sampling_rate"]
    except (KeyError, TypeError, IndexError):
        found = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise ValueError(
            "expected a recording as {'array', 'sampling_rate'}, {'bytes', 'path'} or a path in "
            f"the column 'audio', found {found}"
        ) from None
    samples = samples if hasattr(samples, "__array__") else np.asarray(samples, np.float32)
    return as_audio(samples, int(rate_hz))


def find_path(value: Any) -> str | None:
    """Path of the recording in the column ``audio`` of a row, if it says one."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    return value.get("path") if isinstance(value, Mapping) else None


class RowEnhancer:
    """Enhancement of one row of a dataset, for ``Dataset.map``.

    Models are loaded when the first row comes, and stay out of pickles: a pickle, from which
    ``datasets`` tells whether a result can be taken from its cache, holds the settings only.

    Parameters
    ----------
    band
        Mass of a credible band that is added as ``lower`` and ``upper``, with the standard
        deviation ``sd`` of each sample. None: neither, which saves time.
    output
        Column of the enhanced recording. Another than ``audio`` keeps the noisy one beside it.
    settings
        As of `avse_ppl.enhance`: ``speech``, ``noise``, ``inference``, ``seed``, ``device``,
        ``draws``, ``reliability``, ``predictor``, ``predictor_optional``, ``time_limit_s``,
        ``recalibrate``; and ``video_options``.

    Examples
    --------
    >>> enhance_row = RowEnhancer(speech="gaussian", noise="stationary", draws=4, band=0.9)
    >>> noisy = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> row = enhance_row({"text": "yes", "audio": {"array": noisy, "sampling_rate": 16000}})
    >>> sorted(row)
    ['audio', 'id', 'kind', 'lower', 'remarks', 'sd', 'text', 'upper']
    >>> row["audio"]["array"].shape, row["lower"].shape
    ((8000,), (8000,))
    """

    def __init__(self, *, band: float | None = None, output: str = AUDIO, **settings: Any) -> None:
        if band is not None and not 0 < band < 1:
            raise ValueError(f"expected a band between 0 and 1, such as 0.9, found {band!r}")
        self.band, self.output, self.settings = band, output, settings
        self._enhancer: Enhancer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_enhancer": None}

    @property
    def enhancer(self) -> Enhancer:
        """Models and inference method, loaded once."""
        if self._enhancer is None:
            settings = {name: one for name, one in self.settings.items() if name != "video_options"}
            prior = resolve_speech(settings.pop("speech", None))
            noise, reliability = settings.pop("noise", "nmf"), settings.pop("reliability", None)
            inference = settings.pop("inference", None)
            settings.setdefault("keep_posterior", self.band is not None)
            self._enhancer = Enhancer.of(prior, noise, reliability, inference, **settings)
        return self._enhancer

    def __call__(self, row: Row) -> dict[str, Any]:
        """Enhance one row, or with ``batched=True`` several: a mapping of columns to lists.

        Raises
        ------
        ValueError, OSError
            If there is no recording in the row, or it cannot be used.
        """
        values = row.get(AUDIO)
        if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
            rows = [{name: column[i] for name, column in row.items()} for i in range(len(values))]
            found = list(iterate_enhanced(rows, enhancer=self))
            return {name: [one[name] for one in found] for name in (found[0] if found else ())}
        (enhanced,) = iterate_enhanced([row], enhancer=self)
        return enhanced

    def observe(self, row: Row, reader: SpanReader, span: Span | None = None) -> Observation:
        """Recording of a row made ready, with the lips of its video where the prior sees them."""
        if AUDIO not in row:
            raise ValueError(f"a row has no column 'audio', but {', '.join(map(repr, row))}")
        given, stft = read_row_audio(row[AUDIO]), self.enhancer.scene.stft
        options = self.settings.get("video_options") or VideoOptions()
        video = row.get("video") if is_audio_visual(self.enhancer.scene.speech) else None
        if isinstance(given, str) and span is not None:
            return reader.observe(given, stft, video, options, start_s=span[0], duration_s=span[1])
        return observe(given, stft, video, options)

    def describe(
        self, row: Row, number: int, result: Enhanced, remarks: list[str]
    ) -> dict[str, Any]:
        """Row with the enhanced recording in place of the noisy one, and what is known of it."""
        path = find_path(row[AUDIO])
        name = row.get("id") or (Path(path).stem if path else str(number))
        found: dict[str, Any] = {
            **row,
            "id": str(name),
            self.output: {
                "array": result.speech.samples, "sampling_rate": result.speech.sample_rate_hz,
                "path": path,
            },
            "kind": result.kind or "",
            "remarks": list(dict.fromkeys([*remarks, *result.warnings])),
        }  # fmt: skip
        return found if self.band is None else found | measure_band(result, self.band)


def measure_band(result: Enhanced, probability: float) -> dict[str, np.ndarray]:
    """Credible band and standard deviation of each sample, in the shape of the speech.

    Silent channels, which have no posterior, are certain.
    """
    speech = np.atleast_2d(result.speech.samples)
    lower, upper, sd = speech.copy(), speech.copy(), np.zeros_like(speech)
    if result.posterior is not None:
        heard = [c for c, channel in enumerate(speech) if channel.any()]
        low, high = result.posterior.interval(probability)
        lower[heard], upper[heard] = low, high
        sd[heard] = [result.posterior.draws(r).std(axis=0) for r in range(len(heard))]
    shape = result.speech.samples.shape
    return {"lower": lower.reshape(shape), "upper": upper.reshape(shape), "sd": sd.reshape(shape)}


class Waiting(NamedTuple):
    """A row that was read, its number, its recording, and remarks on that."""

    row: Row
    number: int
    observed: Observation
    remarks: list[str]


def iterate_enhanced(
    rows: Iterable[Row] | str | os.PathLike[str],
    *,
    band: float | None = None,
    output: str = AUDIO,
    skip_failed: bool = False,
    enhancer: RowEnhancer | None = None,
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """Enhance the rows of a dataset, or the recordings of a manifest, one after the other.

    About a minute of audio is enhanced in a batch, so that some rows are read ahead.

    Parameters
    ----------
    rows
        Mappings with a column ``audio`` (see `read_row_audio`), and perhaps ``id`` and ``video``;
        or the path of a manifest, see `avse_ppl.pipeline.corpus_manifest.read_corpus_manifest`.
    band, output, settings
        As of `RowEnhancer`.
    skip_failed
        Whether to leave out recordings that cannot be enhanced, with a warning.
    enhancer
        In place of ``band``, ``output`` and the settings.

    Yields
    ------
    dict
        In the order of the rows: their columns, with ``audio`` the enhanced recording as
        ``{"array", "sampling_rate", "path"}`` (the path is that of the noisy one), ``id``, ``kind``
        of the posterior, ``remarks`` on it, and with a band ``lower``, ``upper`` and ``sd``, of
        the shape of the array. Seeds are as of `avse_ppl.enhance`: the same row, the same result.

    Raises
    ------
    ValueError, OSError
        If a recording cannot be used, with its id or number.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(size=(2, 8000)).astype("float32")
    >>> rows = [{"audio": {"array": wave, "sampling_rate": 16000}, "text": "yes"} for wave in noisy]
    >>> found = list(iterate_enhanced(rows, speech="gaussian", noise="stationary"))
    >>> [(one["id"], one["text"], one["audio"]["array"].shape) for one in found]
    [('0', 'yes', (8000,)), ('1', 'yes', (8000,))]
    """
    own = enhancer or RowEnhancer(band=band, output=output, **settings)
    given = read_rows(rows) if isinstance(rows, (str, os.PathLike)) else ((r, None) for r in rows)
    waiting: list[Waiting] = []
    with SpanReader() as reader:
        for number, (row, span) in enumerate(given):
            remarks: list[str] = []
            try:
                with collect_warnings(remarks):
                    observed = own.observe(row, reader, span)
            except (ValueError, OSError, ModuleNotFoundError) as error:
                refuse_row(row, number, error, skip_failed)
                continue
            waiting.append(Waiting(row, number, observed, remarks))
            if sum(one.observed.audio.duration_s for one in waiting) >= BATCH_S:
                yield from enhance_waiting(own, waiting, skip_failed)
                waiting = []
    yield from enhance_waiting(own, waiting, skip_failed)


def read_rows(manifest: str | os.PathLike[str]) -> Iterator[tuple[Row, Span]]:
    """Rows of a manifest, with the span of each: its columns, the recording in ``audio``."""
    for item in read_corpus_manifest(Path(manifest)).items:
        columns = item.row if isinstance(item.row, dict) else {}
        row = {name: value for name, value in columns.items() if name not in AUDIO_FIELDS}
        video = None if item.video is None else str(item.video)
        named = {"id": item.id, AUDIO: str(item.audio), **({"video": video} if video else {})}
        yield {**row, **named}, (item.start_s, item.duration_s)


def enhance_waiting(
    own: RowEnhancer, waiting: Sequence[Waiting], skip_failed: bool
) -> Iterator[dict[str, Any]]:
    """Enhance rows that were read in one batch; where it fails, one after the other."""
    if not waiting:
        return
    common: list[str] = []
    try:
        with collect_warnings(common):
            results = own.enhancer.enhance([one.observed for one in waiting])
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if len(waiting) > 1 and not isinstance(error, TimeoutError):
            for one in waiting:
                yield from enhance_waiting(own, [one], skip_failed)
            return
        for one in waiting:
            refuse_row(one.row, one.number, error, skip_failed)
        return
    for one, result in zip(waiting, results, strict=True):
        yield own.describe(one.row, one.number, result, [*one.remarks, *common])


def refuse_row(row: Row, number: int, error: Exception, skip: bool) -> None:
    """Raise an error of a row that names it, or warn of it where such rows are left out."""
    path = find_path(row.get(AUDIO))
    name = repr(str(row.get("id") or path)) if row.get("id") or path else str(number)
    if not skip:
        raise ValueError(f"row {name}: {error}") from error
    warnings.warn(f"row {name} is left out: {error}", UserWarning, stacklevel=3)
