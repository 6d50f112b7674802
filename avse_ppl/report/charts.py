"""Charts of a report: levels as grey images, curves as packed numbers, drawn by the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.models.predictors.predictor import ERROR
from avse_ppl.plotting.figure import LEVEL_MAP, RANGE_DB, convert_to_db
from avse_ppl.plotting.noise import compute_noise_factors, find_noise_factors
from avse_ppl.plotting.posterior import compute_envelope, compute_levels
from avse_ppl.plotting.predictor import compute_error_excess
from avse_ppl.posterior.posterior import Posterior

if TYPE_CHECKING:
    from avse_ppl.video.lips import Lips

_MOST_FRAMES, _MOST_BINS = 1600, 520  # of an image; more are averaged
_WAVE_COLUMNS, _CURVE_POINTS = 16_000, 4000
_LARGEST = 32766  # of a packed number; -32768 is NaN
_TRACES = {"elbo": "evidence lower bound", "log_joint": "log joint density"}


def make_charts(posterior: Posterior, probability: float = 0.9) -> list[dict[str, Any]]:
    """Make the charts of a single recording, in the order in which they are shown.

    Each has ``id``, ``kind`` (``"maps"`` or ``"curves"``), ``title``, ``text`` (what it shows, in
    words), its axes ``x`` and ``y`` (``label``, ``unit``, ``low``, ``high``), and ``images`` or
    ``curves``; ``axis`` says which charts are zoomed together.

    Parameters
    ----------
    posterior
        Of one recording.
    probability
        Mass of the bands.
    """
    charts = [make_spectrograms(posterior, probability), make_waveform(posterior, probability)]
    if len(posterior.draws()) >= 2:
        charts.append(make_levels(posterior, probability))
    if posterior.reliability is not None:
        charts.append(make_gate(posterior))
    for site in find_noise_factors(posterior):
        charts += make_noise_factors(posterior, site)
    if ERROR in posterior.latents:
        charts.append(make_error_excess(posterior, probability))
    trace = make_trace(posterior)
    return charts if trace is None else [*charts, trace]


# --- over time and frequency ---------------------------------------------------------------------


def make_spectrograms(posterior: Posterior, probability: float) -> dict[str, Any]:
    """Make the spectrogram triptych: noisy, posterior mean, width of the credible band.

    Without draws the third is the posterior standard deviation.
    """
    mixture, mean = np.abs(posterior.mixture[0]), np.abs(posterior.mean[0])
    third, title = posterior.sd[0], "posterior standard deviation"
    if len(posterior.draws()) >= 2:
        low, high = posterior.interval(probability, of="magnitude")
        third, title = (high - low)[0], f"width of the {probability:.0%} credible band"
    reference = float(mixture.max()) or 1.0
    stft = posterior.stft
    duration_s = posterior.n_samples[0] / stft.sample_rate_hz
    top_hz = stft.sample_rate_hz / 2
    images = []
    for name, magnitude in (("noisy", mixture), ("posterior mean", mean), (title, third)):
        power = average_blocks((magnitude / reference) ** 2, _MOST_BINS, _MOST_FRAMES)
        images.append(
            {
                "name": name,
                "uri": encode_levels(convert_to_db(power)),
                "alt": f"Spectrogram, {name}: {duration_s:.1f} s, 0 to {top_hz:.0f} Hz, from "
                f"-{RANGE_DB:.0f} dB (dark) to 0 dB (light).",
            }
        )
    return {
        "id": "spectrograms",
        "kind": "maps",
        "axis": "time",
        "title": "Spectrograms",
        "text": f"Magnitude, dB relative to the loudest bin. The third is the {title}: where it is "
        "as light as the second, the posterior knows little more than the order of magnitude.",
        "x": axis_of("time", "s", 0.0, duration_s),
        "y": axis_of("frequency", "Hz", 0.0, top_hz),
        "low": -RANGE_DB,
        "high": 0.0,
        "unit": "dB",
        "images": images,
    }


def make_waveform(posterior: Posterior, probability: float) -> dict[str, Any]:
    """Make the waveform with its credible band: ranges of noisy and enhanced in each column."""
    n, rate_hz = posterior.n_samples[0], posterior.stft.sample_rate_hz
    noisy = compute_envelope(posterior.noisy(), _WAVE_COLUMNS)
    mean = compute_envelope(posterior.enhance(), _WAVE_COLUMNS)
    curves = [band_of("noisy", noisy[0], noisy[1], "faint")]
    if len(posterior.draws()) >= 2:
        low, high = (bound[0] for bound in posterior.interval(probability))
        low = compute_envelope(low, _WAVE_COLUMNS)[0]
        high = compute_envelope(high, _WAVE_COLUMNS)[1]
        curves.append(band_of(f"{probability:.0%} credible band", low, high, "band"))
    curves.append(band_of("enhanced", mean[0], mean[1], "dark"))
    peak = float(max(np.abs(noisy).max(), np.abs(mean).max())) or 1.0
    return {
        "id": "waveform",
        "kind": "curves",
        "axis": "time",
        "title": "Waveform",
        "text": "Range of the samples in each column; zoom in to see the wave itself. The band "
        "holds each sample with the stated probability.",
        "x": axis_of("time", "s", 0.0, n / rate_hz),
        "y": axis_of("amplitude", "", -1.05 * peak, 1.05 * peak),
        "curves": curves,
    }


def make_levels(posterior: Posterior, probability: float) -> dict[str, Any]:
    """Make the level of the speech in each frame, with its credible band."""
    low, middle, high, noisy = compute_levels(posterior, probability)
    top = float(max(noisy.max(), high.max()))
    return {
        "id": "level",
        "kind": "curves",
        "axis": "time",
        "title": "Level of each frame",
        "text": "Energy of the speech, as far as it is known: the line is the median over the "
        "draws.",
        **frames_axis(posterior),
        "y": axis_of("level", "dB", max(top - 75.0, float(low.min())) - 2.0, top + 3.0),
        "curves": [
            band_of(f"{probability:.0%} credible band", low, high, "band"),
            line_of("posterior median", middle, "dark"),
            line_of("noisy", noisy, "dashed"),
        ],
    }


def make_gate(posterior: Posterior) -> dict[str, Any]:
    """Make the visual gate over time; of a posterior with video."""
    gate = posterior.reliability
    values = np.zeros(1) if gate is None else gate[0]
    return {
        "id": "gate",
        "kind": "curves",
        "axis": "time",
        "title": "Visual gate",
        "text": "How far the lips count in each frame: 1 wholly, 0 not at all (audio-only). "
        f"Its mean is {float(values.mean()):.2f}.",
        **frames_axis(posterior),
        "y": axis_of("gate", "", 0.0, 1.05),
        "curves": [line_of("gate", values, "dark")],
    }


# --- noise, predictor, inference -----------------------------------------------------------------


def make_noise_factors(posterior: Posterior, site: str) -> list[dict[str, Any]]:
    """Make two charts of NMF noise: spectra over frequency, activations over time."""
    spectra, activations = (convert_to_db(rows) for rows in compute_noise_factors(posterior, site))
    extra = "" if site == "noise" else f", {site}"
    top_hz = posterior.stft.sample_rate_hz / 2

    def make_lines(rows: np.ndarray) -> dict[str, Any]:
        top = float(rows.max())
        styles = [f"line{number % 8}" for number in range(len(rows))]
        lines = [
            line_of(f"component {number + 1}", row, style)
            for number, (row, style) in enumerate(zip(rows, styles, strict=True))
        ]
        low = max(top - 50.0, float(rows.min()))
        return {"curves": lines, "y": axis_of("power", "dB", low - 1.0, top + 2.0)}

    return [
        {
            "id": f"spectra-{site}",
            "kind": "curves",
            "axis": "freq",
            "title": f"Noise spectra{extra}",
            "text": "Spectra of which the noise is a mixture that changes over time, dB relative "
            "to the mean of each.",
            "x": axis_of("frequency", "Hz", 0.0, top_hz),
            **make_lines(spectra),
        },
        {
            "id": f"activations-{site}",
            "kind": "curves",
            "axis": "time",
            "title": f"Activations of the noise spectra{extra}",
            "text": "How loud each is when, dB relative to the mean power of the recording.",
            **frames_axis(posterior),
            **make_lines(activations),
        },
    ]


def make_error_excess(posterior: Posterior, probability: float) -> dict[str, Any]:
    """Make the excess of a predictor's error over its law, by frequency."""
    tail = (1 - probability) / 2
    draws = compute_error_excess(posterior)
    low, middle, high = np.quantile(draws, (tail, 0.5, 1 - tail), axis=0)
    return {
        "id": "error-excess",
        "kind": "curves",
        "axis": "freq",
        "title": "Error of the predictor",
        "text": "By how much the error of the predictor exceeds what its law expects, as found on "
        "this recording: near 0 dB it is as good as expected, above 10 dB it counts for little.",
        "x": axis_of("frequency", "Hz", 0.0, posterior.stft.sample_rate_hz / 2),
        "y": axis_of("excess", "dB", -0.2, max(7.5, 1.1 * float(high.max()))),
        "curves": [
            band_of(f"{probability:.0%} credible band", low, high, "band"),
            line_of("posterior median", middle, "dark"),
        ],
    }


def make_trace(posterior: Posterior) -> dict[str, Any] | None:
    """Make the trace of the optimisation or of the chains; None if the method kept none."""
    name = next((name for name in _TRACES if name in posterior.trace), None)
    if name is not None:
        values, what, x = posterior.trace[name][:, 0], _TRACES[name], "step"
        rows = [(what, values[: np.flatnonzero(np.isfinite(values)).max(initial=-1) + 1])]
    elif "lp" in posterior.stats:
        chains, what, x = posterior.stats["lp"][:, :, 0], "log density", "draw"
        rows = [(f"chain {number + 1}", row) for number, row in enumerate(chains)]
    else:
        return None
    finite = np.concatenate([row[np.isfinite(row)] for _, row in rows])
    if finite.size < 2:
        return None
    # Of its last three quarters, since before the climb was far from over, and without what a few
    # draws far off make of it.
    low, high = np.quantile(finite[len(finite) // 4 :], (0.02, 1.0))
    margin = float(high - low) or 1.0
    return {
        "id": "trace",
        "kind": "curves",
        "axis": "step",
        "title": "Trace of the inference",
        "text": f"The {what} at each {x}: at its end it should be level.",
        "x": axis_of(x, "", 1.0, float(max(2, *(len(row) for _, row in rows)))),
        "y": axis_of("", "nats", float(low) - margin, float(high) + 0.3 * margin),
        "curves": [line_of(n, row, f"line{i % 8}") for i, (n, row) in enumerate(rows)],
    }


def draw_lips(posterior: Posterior, lips: Lips) -> dict[str, str]:
    """Draw the reliability timeline of the lips as a picture.

    Returns
    -------
    dict
        ``uri`` (PNG), ``alt`` and ``text``, which tell the same in words.
    """
    from avse_ppl.plotting.reliability import draw_reliability
    from avse_ppl.signal.audio import Audio
    from avse_ppl.video.quality.score import score_lips

    audio = Audio(posterior.noisy(), posterior.stft.sample_rate_hz)
    reliability = score_lips(lips, audio)
    figure = draw_reliability(reliability, lips)[0].figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    spans = [
        f"{start_s:.1f} to {end_s:.1f} s {cause} ({score:.2f})"
        for start_s, end_s, cause, score in reliability.spans()[:12]
    ]
    text = (
        f"Mean reliability of the lips: {float(reliability.score.mean()):.2f} of 1. Likeliest "
        f"cause and mean reliability: {'; '.join(spans)}."
    )
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    alt = "Mouth crops over time, above their reliability, its synchrony and its causes. " + text
    return {"uri": uri, "alt": alt, "text": text}


# --- packing -------------------------------------------------------------------------------------


def axis_of(label: str, unit: str, low: float, high: float) -> dict[str, Any]:
    """Describe an axis."""
    return {"label": label, "unit": unit, "low": low, "high": high}


def frames_axis(posterior: Posterior) -> dict[str, Any]:
    """Describe the time axis, and where on it the first and the last frame lie."""
    stft = posterior.stft
    duration_s = posterior.n_samples[0] / stft.sample_rate_hz
    last_s = (posterior.mean.shape[2] - 1) * stft.hop / stft.sample_rate_hz
    return {"x": axis_of("time", "s", 0.0, duration_s), "points": [0.0, last_s]}


def line_of(name: str, values: np.ndarray, style: str) -> dict[str, Any]:
    """Pack a curve."""
    if len(values) > _CURVE_POINTS:
        values = average_blocks(values[None], 1, _CURVE_POINTS)[0]
    return {"name": name, "style": style, **pack_numbers([values])}


def band_of(name: str, low: np.ndarray, high: np.ndarray, style: str) -> dict[str, Any]:
    """Pack a band between two curves."""
    if len(low) > _WAVE_COLUMNS:
        low, high = (average_blocks(v[None], 1, _WAVE_COLUMNS)[0] for v in (low, high))
    return {"name": name, "style": style, **pack_numbers([low, high])}


def pack_numbers(rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """Pack rows of numbers of one length as 16-bit integers, with NaN as -32768.

    Returns
    -------
    dict
        ``data`` (base64, little endian), ``scale`` and ``offset``: a number is ``scale * integer +
        offset``; ``rows``.

    Examples
    --------
    >>> packed = pack_numbers([np.array([0.0, 1.0])])
    >>> np.frombuffer(base64.b64decode(packed["data"]), "<i2").tolist()
    [-32766, 32766]
    """
    values = np.stack([np.asarray(row, float) for row in rows])
    known = np.isfinite(values)
    low, high = (
        (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
    )
    offset, scale = (low + high) / 2, (high - low) / (2 * _LARGEST) or 1.0
    whole = np.where(known, np.rint((np.where(known, values, low) - offset) / scale), -32768)
    data = base64.b64encode(whole.astype("<i2").tobytes()).decode()
    return {"data": data, "scale": scale, "offset": offset, "rows": len(rows)}


def average_blocks(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Average a matrix in blocks, so that it has at most so many rows and columns.

    Examples
    --------
    >>> average_blocks(np.arange(8.0).reshape(2, 4), 2, 2)
    array([[0.5, 2.5],
           [4.5, 6.5]])
    """
    for axis, most in ((0, rows), (1, columns)):
        size = values.shape[axis]
        if size > most:
            edges = np.linspace(0, size, most, endpoint=False).astype(int)
            counts = np.diff(np.append(edges, size))
            sums = np.add.reduceat(values, edges, axis=axis)
            values = sums / np.expand_dims(counts, 1 - axis)
    return values


def encode_levels(level_db: np.ndarray) -> str:
    """Encode levels ``(freq, time)`` as a grey PNG, high frequencies above: 0 is -60 dB, 255 0 dB.

    Returns
    -------
    str
        ``data:image/png;base64,...``
    """
    from PIL import Image

    grey = np.clip(1.0 + level_db[::-1] / RANGE_DB, 0.0, 1.0)
    whole = np.rint(255 * grey).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def list_colours() -> list[str]:
    """List the 256 colours of levels, as ``rrggbb``, dark to light."""
    import matplotlib

    steps = matplotlib.colormaps[LEVEL_MAP](np.arange(256))[:, :3]
    return [bytes(np.rint(255 * step).astype(np.uint8)).hex() for step in steps]
