"""Batches of recordings enhanced by many processes, on this machine or a cluster, through Ray.

`enhance_on_cluster` sends each batch of `enhance_files` as one task to a worker, a process that
loads the models once, runs the same `enhance_jobs`, and writes the results itself: recordings and
outputs lie on a file system that all machines share. What is finished is known, logged and listed
by the process that sends the batches, as without a cluster.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import platform
import socket
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avse_ppl.pipeline.catalog import resolve_speech
from avse_ppl.pipeline.enhance import Enhancer
from avse_ppl.pipeline.enhance_jobs import Outcome, enhance_jobs
from avse_ppl.pipeline.inputs import VideoOptions
from avse_ppl.pipeline.jobs import Job
from avse_ppl.pipeline.spans import SpanReader
from avse_ppl.utils.version import __version__

LOCAL, AUTO = "local", "auto"  # addresses: cores of this machine; the cluster that it belongs to
_RETRIES = 2  # of a batch whose worker died, before its recordings are tried one by one
_WORKER_BYTES = 2 * 2**30  # that a worker takes at most with the default method, without posterior
_STORE_BYTES = 80 * 2**20  # for objects that processes share: hardly any, results are files
_CONNECT_S = 5.0  # to reach a cluster
_CANCEL_S = 10.0  # for workers to remove what they have half written

Batch = Mapping[Job, Path | None]  # recordings that are enhanced together, with their videos


class ClusterError(OSError):
    """A cluster that cannot be reached, or cannot do what is asked of it."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know before its first batch.

    Parameters
    ----------
    speech
        Name of a speech prior, or whatever `resolve_speech` takes.
    settings
        The other arguments of `Enhancer.of`, as names where they have one: models are loaded by
        each worker, once.
    video_options
        As in `enhance_files`.
    folder
        Current folder, to which paths and modules of the user are relative.
    version
        Of the library.
    """

    speech: Any
    settings: Mapping[str, Any]
    video_options: VideoOptions
    folder: Path
    version: str = __version__


def check_cluster(address: str, workers: int | None = None) -> None:
    """Check what can be checked of a cluster without starting anything.

    Raises
    ------
    ImportError
        If Ray is not installed.
    ValueError
        If the address is none, or ``workers`` is not positive.
    ClusterError
        If nothing answers at the address.

    Examples
    --------
    >>> check_cluster("somewhere")
    Traceback (most recent call last):
    ValueError: expected 'local', 'auto' or HOST:PORT as the address of a cluster, found 'somewhere'
    """
    if importlib.util.find_spec("ray") is None:
        raise ImportError("a cluster needs an optional part: pip install 'avse-ppl[cluster]'")
    if workers is not None and workers < 1:
        raise ValueError(f"expected one worker or more, found {workers}")
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS", AUTO)
    if address in (LOCAL, AUTO):
        return
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise ValueError(
            f"'{address}' is the address of a remote client; run the command on a machine of the "
            "cluster instead, with 'auto' or HOST:PORT"
        )
    if not host or not port.isdigit():
        raise ValueError(
            f"expected 'local', 'auto' or HOST:PORT as the address of a cluster, found '{address}'"
        )
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"no Ray cluster answers at '{address}' ({reason}); 'ray status' on a machine of it "
            "says whether it runs, 'ray start --head' starts one"
        ) from None


@contextmanager
def connect_cluster(address: str, workers: int | None = None) -> Iterator[Any]:
    """Connect to a Ray cluster, or start one on this machine; it ends with the block.

    Where this process is connected already (``ray.init``), that connection is taken, and stays.

    Parameters
    ----------
    address
        ``"local"``, ``"auto"`` or ``HOST:PORT``.
    workers
        Of a local one; None: one a core.

    Yields
    ------
    module
        ``ray``.

    Raises
    ------
    ImportError, ValueError, ClusterError
        As `check_cluster`, and if the connection fails.
    """
    check_cluster(address, workers)
    # No statistics are sent anywhere, and what Ray says of its own future is of no use to a user.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray

            if ray.is_initialized():
                yield ray
                return
            options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address == LOCAL:
                folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
                options |= {
                    "num_cpus": workers, "include_dashboard": False,
                    "object_store_memory": _STORE_BYTES, "_temp_dir": stack.enter_context(folder),
                }  # fmt: skip
            try:
                ray.init(address=address, **options)
            except Exception as error:  # whatever Ray comes up with, other versions among it
                text = str(error).strip().splitlines() or [type(error).__name__]
                hint = "if it asks for a token, set RAY_AUTH_TOKEN as on its head"
                if address == LOCAL:
                    hint = "where the machine is busy, try again"
                elif address == AUTO:
                    hint = "'ray start --head' starts one, 'local' needs none"
                raise ClusterError(
                    f"no connection to a Ray cluster at '{address}': {text[0]}; {hint}"
                ) from None
        stack.callback(ray.shutdown)
        yield ray


def choose_resources(ray: Any, device: str) -> tuple[str, dict[str, float]]:
    """Device of the workers, and what Ray sets aside for each.

    ``"auto"`` takes GPUs where the cluster has any.

    Raises
    ------
    ClusterError
        If no machine of the cluster has it.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    device = ("cuda" if gpus else "cpu") if device == "auto" else device
    need = {"CPU": 1.0, "memory": float(_WORKER_BYTES), "GPU": float(device != "cpu")}
    if not any(all(node.get(name, 0) >= least for name, least in need.items()) for node in nodes):
        raise ClusterError(
            f"no machine of the cluster has {describe_resources(need)} for a worker; the largest "
            f"has {describe_resources(max(nodes, key=lambda node: node.get('memory', 0)))}"
        )
    names = {"num_cpus": need["CPU"], "num_gpus": need["GPU"], "memory": need["memory"]}
    return device, names


def describe_resources(resources: Mapping[str, float]) -> str:
    """Resources in words.

    Examples
    --------
    >>> describe_resources({"CPU": 1.0, "memory": 2.0 * 2**30})
    '1 core, 0 GPU, 2.0 GiB'
    """
    cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    gib = resources.get("memory", 0.0) / 2**30
    return f"{cores} core{'s' * (cores != 1)}, {gpus} GPU, {gib:.1f} GiB"


def enhance_on_cluster(
    ray: Any,
    batches: Sequence[Batch],
    setup: WorkerSetup,
    device: str = "auto",
    workers: int | None = None,
    on_start: Callable[[Collection[Job]], object] = lambda jobs: None,
) -> Generator[Outcome]:
    """Enhance batches on a cluster, and yield the outcomes of each as soon as it is done.

    A batch whose worker dies is done again by another; if that goes on, its recordings are done one
    by one, and those that fail even then are failures.

    Parameters
    ----------
    ray
        From `connect_cluster`.
    batches
        Recordings that are enhanced together.
    setup, device
        For the workers.
    workers
        Batches at once, at most; None: as many as the cluster has room for.
    on_start
        Called with the recordings of each batch before it is sent.

    Raises
    ------
    ClusterError
        If a machine of the cluster lacks the library, or the files.
    """
    device, resources = choose_resources(ray, device)
    setup = replace(setup, settings={**setup.settings, "device": device})
    send = ray.remote(max_retries=_RETRIES, **resources)(run_task).remote
    shared = [ray.put(setup)]  # in a list it is fetched by the worker that has not got it yet
    waiting, running = deque(batches), {}
    try:
        while waiting or running:
            room = workers or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while waiting and len(running) < room:
                batch = waiting.popleft()
                on_start(batch.keys())
                running[send(shared, batch)] = batch
            for task in ray.wait(list(running))[0]:
                batch = running.pop(task)
                try:
                    yield from ray.get(task)
                except ray.exceptions.RayTaskError as error:
                    raise explain_failure(error) from None
                except ray.exceptions.RayError as error:
                    if len(batch) > 1:
                        waiting.extend({job: video} for job, video in batch.items())
                        continue
                    reason = str(error).strip().splitlines() or [type(error).__name__]
                    died = ClusterError(f"its worker died each time: {reason[0]}")
                    yield from (Outcome(job, "failed", {}, error=died) for job in batch)
    finally:
        cancel_tasks(ray, list(running))


def cancel_tasks(ray: Any, tasks: list[Any]) -> None:
    """Stop tasks: by an interrupt, on which workers remove what is half written, then for good."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(tasks, num_returns=len(tasks), timeout=_CANCEL_S)
        for task in tasks:
            ray.cancel(task, force=True)


def explain_failure(error: Any) -> Exception:
    """Error of a task that is about none of its recordings, in words of the library."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ModuleNotFoundError):
        where = "a machine of the cluster"
        return ClusterError(f"{where}: {cause}; it needs the same installation as this one")
    return cause if isinstance(cause, Exception) else error


# --- in a worker ---------------------------------------------------------------------------------


def run_task(shared: Sequence[Any], batch: Batch) -> list[Outcome]:
    """Enhance and write one batch in a worker.

    Parameters
    ----------
    shared
        Reference to the `WorkerSetup`, in a list.
    batch
        The recordings.
    """
    enhancer, video_options = prepare_worker(shared[0])
    with SpanReader() as reader:
        outcomes = enhance_jobs(enhancer, batch, video_options, reader)
        return [make_portable(outcome) for outcome in outcomes]


@functools.lru_cache(maxsize=1)
def prepare_worker(reference: Any) -> tuple[Enhancer, VideoOptions]:
    """Load the models in a worker, once for all its batches.

    Raises
    ------
    ClusterError
        If the machine has another version of the library, or not the files.
    """
    import ray
    import torch

    setup: WorkerSetup = ray.get(reference)
    machine = f"machine '{platform.node()}' of the cluster"
    if setup.version != __version__:
        raise ClusterError(
            f"{machine} has version {__version__} of the library, the command {setup.version}; "
            "results would differ: install the same one on all"
        )
    try:
        os.chdir(setup.folder)
    except OSError as error:
        raise ClusterError(
            f"{machine} has no folder '{setup.folder}' ({error.strerror}); run the command in a "
            "folder that all machines share, as its recordings and results are to be"
        ) from None
    torch.set_num_threads(1)  # a worker has one core
    prior = resolve_speech(setup.speech)
    return Enhancer.of(prior, **setup.settings), setup.video_options


def make_portable(outcome: Outcome) -> Outcome:
    """Outcome that can be sent to another process, whatever the error is that it holds."""
    try:
        pickle.loads(pickle.dumps(outcome.error))  # noqa: S301 (our own)
    except Exception:
        text = f"{type(outcome.error).__name__}: {outcome.error}"
        return replace(outcome, error=RuntimeError(text))
    return outcome
