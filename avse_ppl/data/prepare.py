"""Preparation of a corpus: features of all clips in parallel, then the caches made of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from avse_ppl.data.cache import (
    PER_FRAME,
    LipsCache,
    SpeechCache,
    check_settings,
    compute_checksum,
    load_cache,
    load_lips,
    make_empty_lips_arrays,
    name_lips,
    name_noisy,
    read_checksum,
    write_lips_cache,
    write_speech_cache,
)
from avse_ppl.data.clip_features import (
    FeatureSettings,
    Outcome,
    compute_clip_features,
    has_clip_features,
    list_recordings,
    name_audio_file,
    name_lips_file,
    read_features,
)
from avse_ppl.data.clips import Clip
from avse_ppl.utils.files import lock_folder


@dataclass(frozen=True)
class Prepared:
    """Caches of a prepared corpus, and the clips that could not be read.

    Parameters
    ----------
    speech : SpeechCache
        The audio.
    lips : LipsCache or None
        The mouth crops, in the same order; ``None`` if not asked for, or if no clip has video.
    noisy : SpeechCache or None
        The paired noisy recordings, in the same order, where all clips have one.
    left_out : tuple of (Clip, str)
        Clips whose audio could not be read, and why; they are in none of the caches.
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
    when the corpus is complete. At the end the caches are assembled, ``<out_path>.npy`` and
    ``.npz`` (`load_cache`), ``<out_path>.lips.npy`` and ``.lips.npz`` (`load_lips`), and, where
    the clips have paired noisy recordings, ``<out_path>.noisy.npy`` and ``.noisy.npz``.

    Parameters
    ----------
    clips : sequence of Clip
        What to read; kept in this order.
    out_path : str or Path
        Where the files go, without suffix.
    features : FeatureSettings
        What to compute.
    jobs : int
        Processes that read clips in parallel. With more than one, a script that calls this needs
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
        If there is no face detector, a file cannot be written, a worker process is killed, or
        another run prepares to the same place.
    """
    out_path, features = Path(out_path), features or FeatureSettings()
    check_settings(clips, features.sample_rate_hz, features.highpass_hz)
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; expected at least 1")
    there = all(clip.path.is_file() for clip in clips)
    if there and not find_stale(clips, set(), out_path, features):
        return Prepared(*load_caches(clips, out_path, features))
    if features.lips and any(clip.video is not None for clip in clips):
        from avse_ppl.video.face_detector import find_face_model

        find_face_model(features.face_model)  # raises where there is none, before long work
    folder = out_path.with_name(out_path.name + ".pieces")
    with lock_folder(folder):
        outcomes = compute_features(clips, folder, features, jobs, progress)
        results = list(zip(clips, outcomes, strict=True))
        readable = [clip for clip, outcome in results if not outcome.audio_error]
        if not readable:
            raise ValueError(
                f"none of the {len(clips)} clips could be read; the first, {clips[0].path}: "
                f"{outcomes[0].audio_error}"
            )
        without_lips = {clip.path for clip, outcome in results if outcome.lips_error}
        assemble_cache(readable, without_lips, folder, out_path, features)
        return Prepared(
            *load_caches(readable, out_path, features),
            left_out=tuple((clip, o.audio_error) for clip, o in results if o.audio_error),
            without_lips=tuple((clip, o.lips_error) for clip, o in results if o.lips_error),
            remarks=tuple((clip, text) for clip, o in results for text in o.remarks),
        )


# --- Features, clip by clip -----------------------------------------------------------------------


def compute_features(
    clips: Sequence[Clip], folder: Path, features: FeatureSettings, jobs: int, progress: bool
) -> list[Outcome]:
    """Compute the features that are not there yet; one outcome a clip."""
    from rich.console import Console
    from rich.progress import Progress

    outcomes, failed = [Outcome()] * len(clips), 0
    pending = [i for i, clip in enumerate(clips) if not has_clip_features(clip, folder, features)]
    computed = map_in_processes([clips[i] for i in pending], folder, features, jobs)
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("preparing", total=len(clips), completed=len(clips) - len(pending))
        for i, outcome in zip(pending, computed, strict=True):
            outcomes[i] = outcome
            failed += bool(outcome.audio_error or outcome.lips_error)
            text = f"preparing ({failed} unreadable)" if failed else "preparing"
            bar.update(task, advance=1, description=text)
    return outcomes


def map_in_processes(
    clips: Sequence[Clip], folder: Path, features: FeatureSettings, jobs: int
) -> Iterator[Outcome]:
    """Compute the features of clips, in their order, in so many processes."""
    compute = partial(compute_clip_features, folder=folder, features=features)
    if jobs == 1 or len(clips) < 2:
        yield from map(compute, clips)
        return
    import multiprocessing

    # Spawned, as a fork of a process with threads (torch, ONNX) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(clips)), context, use_one_thread)
    try:
        yield from pool.map(compute, clips)
    except BrokenProcessPool as error:
        raise OSError(
            "a worker process was killed, perhaps for want of memory; run it again with fewer "
            "--jobs: what is done is kept"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def use_one_thread() -> None:
    """Let a worker process use one thread, as there is one process a core, and end with its parent.

    A worker whose parent is killed would wait for work for ever.
    """
    import multiprocessing
    import threading

    import cv2
    import torch

    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


# --- Caches ---------------------------------------------------------------------------------------


def assemble_cache(
    clips: Sequence[Clip],
    without_lips: set[Path],
    folder: Path,
    out_path: Path,
    features: FeatureSettings,
) -> None:
    """Write the caches that are not there yet out of the features of all clips.

    Parameters
    ----------
    clips : sequence of Clip
        Whose features are there, in the order of the caches.
    without_lips : set of Path
        Clips whose video could not be read.
    folder : Path
        Where the features are.
    out_path : Path
        Where the caches go, without suffix.
    features : FeatureSettings
        What was computed.

    Raises
    ------
    OSError
        If features are damaged and the clip cannot be read again.
    """
    stale = find_stale(clips, without_lips, out_path, features)

    def read(clip: Clip, path: Path) -> dict[str, np.ndarray]:
        """Read features; those that were damaged since are computed again."""
        arrays = read_features(path)
        if arrays is None:
            outcome = compute_clip_features(clip, folder, features)
            arrays = read_features(path)
            if arrays is None:
                reason = outcome.audio_error or outcome.lips_error or "they cannot be read back"
                raise OSError(f"features of {clip.path}: {reason}; prepare the corpus again")
        return arrays

    for which, path in enumerate((out_path, name_noisy(out_path))):
        if path in stale:
            recordings = [list_recordings(clip)[which] for clip in clips]
            files = [name_audio_file(folder, each, features) for each in recordings]
            audio = (read(clip, file)["samples"] for clip, file in zip(clips, files, strict=True))
            write_speech_cache(clips, audio, path, features.sample_rate_hz, stale[path])
    if (path := name_lips(out_path)) in stale:
        mouths = (
            read(clip, name_lips_file(folder, clip, features))
            if clip.has_mouth and clip.path not in without_lips
            else make_empty_lips_arrays()
            for clip in clips
        )
        write_lips_cache(clips, mouths, out_path, stale[path])


def find_stale(
    clips: Sequence[Clip], without_lips: set[Path], out_path: Path, features: FeatureSettings
) -> dict[Path, str]:
    """Find the caches that are missing or were made of something else, with their checksums."""
    checksum = compute_checksum(clips, features.sample_rate_hz, features.highpass_hz)
    stale = {}
    for path in (out_path, name_noisy(out_path)):
        wanted = path == out_path or have_noisy(clips)
        if wanted and read_checksum(path, ("sample_rate_hz",)) != checksum:
            stale[path] = checksum
    if have_lips(clips, features):
        model = Path(features.face_model).name if features.face_model else ""
        with_lips = [clip.has_mouth and clip.path not in without_lips for clip in clips]
        text = json.dumps([checksum, model, features.face, with_lips])
        checksum = hashlib.sha256(text.encode()).hexdigest()
        if read_checksum(name_lips(out_path), PER_FRAME) != checksum:
            stale[name_lips(out_path)] = checksum
    return stale


def load_caches(
    clips: Sequence[Clip], out_path: Path, features: FeatureSettings
) -> tuple[SpeechCache, LipsCache | None, SpeechCache | None]:
    """Map the caches of audio, mouth crops and paired noisy recordings."""
    lips = load_lips(out_path) if have_lips(clips, features) else None
    noisy = load_cache(name_noisy(out_path)) if have_noisy(clips) else None
    return load_cache(out_path), lips, noisy


def have_lips(clips: Sequence[Clip], features: FeatureSettings) -> bool:
    """Whether there are mouth crops to be computed."""
    return features.lips and any(clip.has_mouth for clip in clips)


def have_noisy(clips: Sequence[Clip]) -> bool:
    """Whether all clips have a paired noisy recording."""
    return all(clip.noisy is not None for clip in clips)
