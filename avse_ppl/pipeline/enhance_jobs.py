"""One batch of recordings: loaded, enhanced and written, with the outcome of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.pipeline.enhance import Enhanced, Enhancer
from avse_ppl.pipeline.inputs import Observation, VideoOptions
from avse_ppl.pipeline.jobs import Job
from avse_ppl.pipeline.spans import SpanReader
from avse_ppl.signal.audio import save_audio
from avse_ppl.utils.run_time import LongRunWarning

if TYPE_CHECKING:
    from avse_ppl.video import Lips


@dataclass(frozen=True)
class Outcome:
    """Result of one job.

    Parameters
    ----------
    job
        The recording.
    status
        ``"enhanced"``; ``"kept"`` if it was finished before; ``"failed"``.
    details
        ``kind`` of the posterior, ``sample_rate_hz``, ``duration_s``, ``cost``, ``posterior``
        (file or None), ``silent`` (then there is none), ``predictor`` (name or None); empty where
        it failed.
    warnings
        Remarks about it.
    error
        Why it failed.
    """

    job: Job
    status: str
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


def enhance_jobs(
    enhancer: Enhancer,
    videos: Mapping[Job, Path | None],
    video_options: VideoOptions,
    reader: SpanReader,
    on_lips: Callable[[Lips], object] | None = None,
    on_results: Callable[[Sequence[Job]], object] = lambda jobs: None,
) -> Iterator[Outcome]:
    """Load, enhance and write one batch of recordings; where it fails, one after the other.

    Parameters
    ----------
    enhancer
        Models and inference method.
    videos
        Video of each job, or None.
    video_options, on_lips
        As in `enhance_files`.
    reader
        Reads the recordings, and spans of them.
    on_results
        Called with the jobs of a batch before their results are written.
    """
    observations: dict[Job, Observation] = {}
    remarks: dict[Job, list[str]] = {job: [] for job in videos}
    for job in sorted(videos, key=lambda job: (str(job.input), job.start_s)):  # each read once
        video = videos[job]
        try:
            with collect_warnings(remarks[job]):
                one = reader.observe(
                    job.input, enhancer.scene.stft, video, video_options,
                    start_s=job.start_s, duration_s=job.duration_s,
                )  # fmt: skip
                if on_lips is not None and one.lips is not None:
                    on_lips(one.lips)
            observations[job] = one
        except (ValueError, OSError, ModuleNotFoundError) as error:
            yield Outcome(job, "failed", {}, error=error)
    # A batch that fails is done again one by one, to find the recording that it failed for.
    batches: list[list[Job]] = [[job for job in videos if job in observations]]
    batches = batches if observations else []
    while batches:
        batch = batches.pop(0)
        common: list[str] = []
        try:
            with collect_warnings(common):
                results = enhancer.enhance([observations[job] for job in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, TimeoutError):  # alone it would be as slow
                yield from (Outcome(job, "failed", {}, error=error) for job in batch)
            else:
                batches = [[job] for job in batch]
            continue
        on_results(batch)
        for job, result in zip(batch, results, strict=True):
            yield write_result(job, result, [*remarks[job], *common, *result.warnings])


def write_result(job: Job, result: Enhanced, remarks: Sequence[str] = ()) -> Outcome:
    """Write the posterior and the speech of a job.

    Where the posterior cannot be written, the speech is, and the job failed all the same.
    """
    posterior, texts = result.posterior, list(remarks)
    nc = job.posterior if posterior is not None else None
    if posterior is not None:
        posterior = replace(posterior, attrs={**posterior.attrs, "recording": job.input.name})
    unsaved: Exception | None = None
    try:
        with collect_warnings(texts):
            if posterior is not None and nc is not None:
                try:
                    nc.parent.mkdir(parents=True, exist_ok=True)
                    posterior.save(nc)
                except (ValueError, OSError) as error:
                    unsaved = error
            job.output.parent.mkdir(parents=True, exist_ok=True)
            save_audio(job.output, result.speech)  # last: where it is, all is
    except (ValueError, OSError) as error:
        return Outcome(job, "failed", {}, tuple(texts), unsaved or error)
    if unsaved is not None:
        texts.append(f"the posterior was not written; the enhanced speech is in {job.output}")
        return Outcome(job, "failed", {}, tuple(texts), unsaved)
    details = {
        "kind": result.kind,
        "sample_rate_hz": result.speech.sample_rate_hz,
        "duration_s": round(result.speech.duration_s, 3),
        "cost": dict(result.cost),
        "posterior": str(nc) if nc else None,
        "silent": result.speech.peak == 0.0,
        "predictor": result.predictor,
    }
    return Outcome(job, "enhanced", details, tuple(texts))


@contextmanager
def collect_warnings(texts: list[str]) -> Iterator[None]:
    """Collect warnings meant for the user, once each, instead of showing them.

    That a run takes long is shown at once, as it is of no use afterwards.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        show_outside = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, LongRunWarning):
                show_outside(message, category, *place)
            elif category is UserWarning and str(message) not in texts:
                texts.append(str(message))

        warnings.showwarning = show
        yield
