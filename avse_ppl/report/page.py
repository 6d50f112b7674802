"""Report pages: the posterior as one HTML file, with nothing to be fetched from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.evaluation.diagnostics import Diagnostics, diagnose
from avse_ppl.evaluation.diagnostics.discrepancy import DiscrepancyCheck
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.report.charts import draw_lips, list_colours, make_charts
from avse_ppl.report.sounds import make_sounds
from avse_ppl.report.verdicts import explain_kind, judge_recording
from avse_ppl.utils.files import atomic_path, check_writable
from avse_ppl.utils.plurals import name_count
from avse_ppl.utils.version import __version__

if TYPE_CHECKING:
    from avse_ppl.video.lips import Lips

SUFFIXES = (".html", ".htm")
_FILES = Path(__file__).parent
_LONGEST = 300  # characters of a setting
# Shown elsewhere than among the settings.
_SHOWN = ("versions", "cost", "suitability", "recording", "converged")  # elsewhere on the page


def write_report(
    posterior: Posterior,
    path: str | os.PathLike[str],
    *,
    diagnostics: Diagnostics | None = None,
    draws: int = 3,
    probability: float = 0.9,
    title: str | None = None,
    lips: Lips | None = None,
    discrepancies: Sequence[DiscrepancyCheck] = (),
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the report of a posterior: an HTML page that opens offline.

    Parameters
    ----------
    posterior
        Of one or several recordings; each has a section.
    path
        HTML file.
    diagnostics, draws, probability, title, lips, discrepancies, progress
        As in `render_report`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the name does not end in ``.html``, the number of draws is negative, the probability is
        outside (0, 1), or the diagnostics are of other recordings.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> posterior = SVI(steps=5, draws=4)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(posterior, f"{folder}/report.html").name
    'report.html'
    """
    path = check_writable(path, suffixes=SUFFIXES)
    text = render_report(
        posterior, diagnostics=diagnostics, draws=draws, probability=probability, title=title,
        lips=lips, discrepancies=discrepancies, progress=progress,
    )  # fmt: skip
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render_report(
    posterior: Posterior,
    *,
    diagnostics: Diagnostics | None = None,
    draws: int = 3,
    probability: float = 0.9,
    title: str | None = None,
    lips: Lips | None = None,
    discrepancies: Sequence[DiscrepancyCheck] = (),
    progress: Callable[[int, int], object] | None = None,
) -> str:
    """Render the report of a posterior as the text of an HTML page.

    Parameters
    ----------
    posterior
        Of one or several recordings; each has a section.
    diagnostics
        From `diagnose`; by default what can be told without the scene.
    draws
        How many draws of each recording can be listened to.
    probability
        Mass of the credible bands.
    title
        By default the name of the recording, where it is known.
    lips
        Of the speaker, in time with the recording: shown with their reliability and its causes.
    discrepancies
        From `check_discrepancies`, one for each recording; none where they were not checked.
    progress
        Called with (step, steps) after each step: sounds and charts of a recording are two.

    Raises
    ------
    ValueError
        If the number of draws is negative, the probability is outside (0, 1), or the diagnostics
        are of other recordings.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Check what was asked for.
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
        raise ValueError(f"draws must be a whole number of at least 0, not {draws!r}")
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, not {probability}")
    diagnostics = diagnose(posterior) if diagnostics is None else diagnostics
    if discrepancies and len(discrepancies) != posterior.recordings:
        raise ValueError(
            f"expected discrepancies of {posterior.recordings} recordings, found those of "
            f"{len(discrepancies)}"
        )
    if len(diagnostics.figures) != posterior.recordings:
        raise ValueError(
            f"expected diagnostics of {posterior.recordings} recordings, found those of "
            f"{len(diagnostics.figures)}"
        )

    # Gather what is shown.
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, 2 * posterior.recordings)

    checks = [*discrepancies] or [None] * posterior.recordings
    sections = [
        make_section(posterior, diagnostics, row, draws, probability, check, advance)
        for row, check in enumerate(checks)
    ]
    pictures = [] if lips is None else [draw_lips(posterior, lips)]
    name = clean_text(title or posterior.attrs.get("recording") or "recording")
    # Nothing may be loaded, and no script but ours may run, whatever stands in the file.
    script, style = ((_FILES / name).read_text("utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    template = environment.from_string((_FILES / "page.html").read_text("utf-8"))
    return template.render(
        title=name, kind=str(posterior.kind), explanations=explain_kind(posterior.kind),
        sections=sections, settings=list_settings(posterior), costs=list_costs(posterior),
        pictures=pictures, predictor=describe_predictor(posterior), version=__version__,
        colours=list_colours(), script=Markup(script), style=Markup(style), digest=digest,
        doubts=sum(section["doubts"] for section in sections),
    )  # fmt: skip


def make_section(
    posterior: Posterior, diagnostics: Diagnostics, row: int, draws: int, probability: float,
    discrepancies: DiscrepancyCheck | None, advance: Callable[[], object],
) -> dict[str, Any]:  # fmt: skip
    """Make what is shown of one recording: sounds, charts and verdicts."""
    one = posterior.select(row)
    sounds, gain_db = make_sounds(one, draws)
    advance()
    charts = make_charts(one, probability)
    advance()
    verdicts = judge_recording(posterior, diagnostics, row, discrepancies)
    several = posterior.recordings > 1
    return {
        "id": f"recording-{row}",
        "heading": f"Recording {row + 1} of {posterior.recordings}" if several else None,
        "duration_s": one.n_samples[0] / one.stft.sample_rate_hz,
        "draws": len(one.draws()),
        "sounds": sounds,
        "gain_db": gain_db,
        "verdicts": verdicts,
        "doubts": sum(verdict.status == "failed" for verdict in verdicts),
        "charts": charts,
    }


def describe_predictor(posterior: Posterior) -> str:
    """Say which predictor took part, in a sentence."""
    name = clean_text(posterior.attrs.get("predictor") or "")
    if posterior.kind.pooled:
        return f"The predictor that took part: {name or 'of an unknown name'}."
    if name and "unused" in posterior.attrs:  # of speech prior and noise model
        return f"The law of the predictor {name} is the posterior."
    if name:
        return f"The predictor {name} was asked, and its answer was not used."
    return "No predictor took part."


def list_settings(posterior: Posterior) -> list[tuple[str, str]]:
    """List models, inference method, seeds, shapes and versions, as names and texts."""
    attrs, stft = posterior.attrs, posterior.stft
    names = {"speech": "speech prior", "noise": "noise model", "routine": "inference method"}
    rows: list[tuple[str, object]] = [(text, attrs.get(key)) for key, text in names.items()]
    rows += [("predictor", attrs.get("predictor") or "none")]
    seeds = list(dict.fromkeys(info.seed for info in posterior.fit if info.seed is not None))
    rows += [("seed" if len(seeds) == 1 else "seeds", ", ".join(map(str, seeds)))]
    rows += [
        (
            "waveform draws",
            f"{name_count(posterior.speech.shape[0], 'chain')} of {posterior.speech.shape[1]}",
        )
    ]
    front_end = f"{stft.n_fft}-point windows, hop {stft.hop}, {stft.sample_rate_hz} Hz"
    rows += [("STFT", front_end)]
    latents = {name: value.shape[3:] for name, value in posterior.latents.items()}
    rows += [("latents", ", ".join(f"{name} {shape}" for name, shape in latents.items()))]
    hidden = {*names, *_SHOWN, "predictor", "seed", "inference_s"}
    rows += [(key, value) for key, value in attrs.items() if key not in hidden]
    versions = attrs.get("versions")
    if isinstance(versions, Mapping):
        rows += [(f"version of {name}", text) for name, text in versions.items()]
    rows += [("report made by", f"avse-ppl {__version__}")]
    return [
        (clean_text(name), clean_text(value)) for name, value in rows if value not in (None, "")
    ]


def list_costs(posterior: Posterior) -> list[tuple[str, str]]:
    """List what the posterior has cost, as names and texts; empty if it is not known."""
    found = posterior.attrs.get("cost")
    cost = found if isinstance(found, Mapping) else {}
    audio_s = sum(posterior.n_samples) / posterior.stft.sample_rate_hz
    inference_s = posterior.attrs.get("inference_s")
    rows: list[tuple[str, object, str]] = [
        ("audio", audio_s, "{:.2f} s"),
        ("all of the enhancement", cost.get("wall_s"), "{:.2f} s"),
        ("CPU time", cost.get("cpu_s"), "{:.2f} s"),
        ("real-time factor", cost.get("real_time_factor"), "{:.2f}"),
        ("inference alone", inference_s, "{:.2f} s"),
    ]
    if not cost and isinstance(inference_s, int | float) and audio_s > 0:
        rows.append(("real-time factor of the inference", inference_s / audio_s, "{:.2f}"))
    return [
        (name, form.format(value))
        for name, value, form in rows
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def clean_text(value: object) -> str:
    r"""Text of a value from a file: one line of printable characters, cut where it is long.

    Examples
    --------
    >>> clean_text("noisy\x00\udcff.wav")
    'noisy.wav'
    """
    text = " ".join(str(value).split())
    text = "".join(letter for letter in text if letter.isprintable())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
