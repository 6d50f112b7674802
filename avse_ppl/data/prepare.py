"""Compute the features of a corpus once: in parallel, and going on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from avse_ppl.data.cache import SpeechCache, check_settings
from avse_ppl.data.clips import Clip
from avse_ppl.data.gather import assemble_cache, load, stale
from avse_ppl.data.lips_cache import LipsCache
from avse_ppl.data.pieces import FeatureSettings, Outcome, is_made, make_pieces


@dataclass(frozen=True)
class Prepared:
    """A corpus whose features are computed, and what could not be.

    Parameters
    ----------
    speech : SpeechCache
        The sound.
    lips : LipsCache or None
        The mouths, in the same order; ``None`` if they were not asked for or no clip has video.
    noisy : SpeechCache or None
        The noisy twins, in the same order, where all clips have one.
    left_out : tuple of (Clip, str)
        Clips whose sound could not be read, and why; they are in none of the caches.
    without_lips : tuple of (Clip, str)
        Clips whose video could not be read or shows no face, and why; they have no frames.
    remarks : tuple of (Clip, str)
        What is noteworthy about clips that were read now.
    """

    speech: SpeechCache
    lips: LipsCache | None = None
    noisy: SpeechCache | None = None
    left_out: tuple[tuple[Clip, str], ...] = ()
    without_lips: tuple[tuple[Clip, str], ...] = ()
    remarks: tuple[tuple[Clip, str], ...] = ()


def prepare(
    clips: Sequence[Clip],
    out_path: str | Path,
    features: FeatureSettings | None = None,
    jobs: int = 1,
    progress: bool = False,
) -> Prepared:
    """Compute the features of clips, once.

    Each clip leaves a file in the folder ``<out_path>.pieces``, named after the path and size of
    its source and the settings: a run that is cut off goes on from there, and a corpus that is
    split anew, or that got further clips, computes only what is new. The folder may be removed
    when the corpus is complete. At the end the pieces are gathered into ``<out_path>.npy`` and
    ``.npz`` (`load_cache`), ``<out_path>.lips.npy`` and ``.lips.npz`` (`load_lips`), and, where
    the clips have noisy twins, ``<out_path>.noisy.npy`` and ``.noisy.npz``.

    Parameters
    ----------
    clips : sequence of Clip
        What to read; kept in this order.
    out_path : str or Path
        Where the files go, without suffix.
    features : Features
        What to compute.
    jobs : int
        Processes that read clips side by side. With more than one, a script that calls this needs
        the usual ``if __name__ == "__main__":``.
    progress : bool
        Whether to draw a bar on stderr.

    Returns
    -------
    Prepared
        The caches, mapped from disk, and what could not be read.

    Raises
    ------
    ValueError
        If there are no clips, a setting is out of range, or no clip at all could be read.
    OSError
        If there is no face detector, a file cannot be written, or a worker process is killed.
    """
    out_path, features = Path(out_path), features or FeatureSettings()
    check_settings(clips, features.sample_rate_hz, features.highpass_hz)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1")
    complete = _complete(clips, out_path, features)
    if complete is not None:
        return complete
    if features.lips and any(clip.video is not None for clip in clips):
        from avse_ppl.video.face_detector import find_face_model

        find_face_model(features.face_model)  # raises where there is none, before long work
    folder = out_path.with_name(out_path.name + ".pieces")
    outcomes = _compute(clips, folder, features, jobs, progress)
    told = list(zip(clips, outcomes, strict=True))
    readable = [clip for clip, outcome in told if not outcome.sound_error]
    if not readable:
        raise ValueError(
            f"none of the {len(clips)} clips could be read; the first, {clips[0].path}: "
            f"{outcomes[0].sound_error}"
        )
    blind = {clip.path for clip, outcome in told if outcome.lips_error}
    assemble_cache(readable, blind, folder, out_path, features)
    return Prepared(
        *load(readable, out_path, features),
        left_out=tuple((clip, o.sound_error) for clip, o in told if o.sound_error),
        without_lips=tuple((clip, o.lips_error) for clip, o in told if o.lips_error),
        remarks=tuple((clip, text) for clip, o in told for text in o.remarks),
    )


def _complete(clips: Sequence[Clip], out_path: Path, features: FeatureSettings) -> Prepared | None:
    """Get what is there already, if it is all there."""
    if not all(clip.path.is_file() for clip in clips) or stale(clips, set(), out_path, features):
        return None
    return Prepared(*load(clips, out_path, features))


def _compute(
    clips: Sequence[Clip], folder: Path, features: FeatureSettings, jobs: int, progress: bool
) -> list[Outcome]:
    """Make the pieces that are not there yet."""
    outcomes = [Outcome()] * len(clips)
    pending = [i for i, clip in enumerate(clips) if not _is_made(clip, folder, features)]
    made = _run([clips[i] for i in pending], folder, features, jobs)
    for i, outcome in zip(pending, _tracked(made, len(clips), len(pending), progress), strict=True):
        outcomes[i] = outcome
    return outcomes


def _is_made(clip: Clip, folder: Path, features: FeatureSettings) -> bool:
    try:
        return is_made(clip, folder, features)
    except OSError:  # the clip is missing, which its outcome will tell
        return False


def _run(
    clips: Sequence[Clip], folder: Path, features: FeatureSettings, jobs: int
) -> Iterator[Outcome]:
    make = partial(make_pieces, folder=folder, features=features)
    if jobs == 1 or len(clips) < 2:
        yield from map(make, clips)
        return
    import multiprocessing

    # Spawned, as a fork of a process with threads (torch, ONNX) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(clips)), context, _one_thread)
    try:
        yield from pool.map(make, clips)
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process was killed, perhaps for want of memory; run it again with fewer "
            "--jobs: what is done is kept"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_thread() -> None:
    """Keep the processes out of each other's way."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _tracked(
    outcomes: Iterator[Outcome], total: int, pending: int, progress: bool
) -> Iterator[Outcome]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("preparing", total=total, completed=total - pending)
        failed = 0
        for outcome in outcomes:
            failed += bool(outcome.sound_error or outcome.lips_error)
            text = f"preparing ({failed} unreadable)" if failed else "preparing"
            bar.update(task, advance=1, description=text)
            yield outcome
