"""Batches on a cluster: what is refused, what is done again, and nothing else than folder mode."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avse_ppl.pipeline import cluster
from avse_ppl.pipeline.cluster import (
    ClusterError,
    WorkerSetup,
    check_cluster,
    choose_resources,
    connect_cluster,
    enhance_on_cluster,
    make_portable,
    prepare_worker,
)
from avse_ppl.pipeline.enhance_files import enhance_files
from avse_ppl.pipeline.enhance_jobs import Outcome
from avse_ppl.pipeline.inputs import VideoOptions
from avse_ppl.pipeline.jobs import Job, plan_jobs
from tests.helpers import RATE_HZ, ROOT

# A noise model that counts how often it is run, by a byte each, and takes its time.
NOISE = """
import os, time
from pyroapi import distributions as dist
from pyroapi import pyro
from avse_ppl import ComplexNormal

def counted(frames):
    handle = os.open("calls", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, b".")
    os.close(handle)
    time.sleep(0.01)
    return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(-1.0, 1.0)))
"""


def write(path, seconds=0.2, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE_HZ))
    soundfile.write(path, samples, RATE_HZ)
    return path


# --- what is refused before anything starts ------------------------------------------------------


def test_without_ray(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'avse-ppl\[cluster\]'"):
        check_cluster("local")


@pytest.mark.parametrize(
    ("address", "workers", "text"),
    [
        ("here", None, "expected 'local', 'auto' or HOST:PORT"),
        (":6379", None, "expected 'local', 'auto' or HOST:PORT"),
        ("ray://head:10001", None, "run the command on a machine of the cluster"),
        ("local", 0, "one worker or more, found 0"),
    ],
)
def test_addresses_that_are_none(address, workers, text):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=text):
        check_cluster(address, workers)


def test_nothing_answers(monkeypatch):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_cluster(address)
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at '{address}'"):
        check_cluster(address)
    monkeypatch.setenv("RAY_ADDRESS", address)  # which 'auto' stands for then
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at '{address}'"):
        check_cluster("auto")


def test_several_recordings_only(tmp_path):
    source = write(tmp_path / "in" / "a.wav")
    one = plan_jobs([source], tmp_path / "e.wav")
    with pytest.raises(ValueError, match="a cluster is for several recordings"):
        next(enhance_files(one, speech="gaussian", cluster="local"))
    several = plan_jobs([source.parent], tmp_path / "out")
    with pytest.raises(ValueError, match="workers are those of a cluster"):
        next(enhance_files(several, speech="gaussian", workers=2))
    assert not (tmp_path / "out").exists()


# --- batches that are sent, with a cluster that only exists in the test --------------------------


class FakeRay:
    """Ray as far as it is used: tasks run when they are waited for, and fail as they are told."""

    def __init__(self, answer, cores=1, gpus=0, memory=2**40):
        self.answer, self.log = answer, []
        self.node = {"CPU": cores, "GPU": gpus, "memory": memory}

        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            cause: Exception | None = None

        self.exceptions = type(
            "exceptions", (), {"RayError": RayError, "RayTaskError": RayTaskError}
        )

    def nodes(self):
        return [{"Alive": True, "Resources": self.node}]

    def cluster_resources(self):
        return self.node

    def put(self, value):
        self.setup = value
        return value

    def remote(self, **options):
        self.options = options

        class Task:
            @staticmethod
            def remote(shared, batch):
                self.log.append(("send", len(batch)))
                return tuple(batch)

        return lambda function: Task

    def wait(self, tasks, num_returns=1, timeout=None):
        return tasks[:1], tasks[1:]

    def get(self, task):
        self.log.append(("get", len(task)))
        return self.answer(self, task)

    def cancel(self, task, force=False):
        self.log.append(("kill" if force else "interrupt", len(task)))


def make_batches(*sizes):
    names = iter(range(sum(sizes)))
    return [
        {Job(Path(f"{i}.wav"), Path(f"out/{i}.wav")): None for i in [next(names) for _ in range(n)]}
        for n in sizes
    ]


SETUP = WorkerSetup("gaussian", {"noise": "nmf"}, VideoOptions(), Path("/"))


def run(ray, batches, **options):
    return list(enhance_on_cluster(ray, batches, SETUP, **options))


def answer_all(ray, task):
    return [Outcome(job, "enhanced", {}) for job in task]


def test_no_more_batches_at_once_than_asked_for():
    ray, begun = FakeRay(answer_all, cores=64), []
    outcomes = run(
        ray, make_batches(3, 2, 1), workers=2, on_start=lambda jobs: begun.append(len(jobs))
    )
    assert len(outcomes) == 6 and begun == [3, 2, 1]
    assert ray.log == [("send", 3), ("send", 2), ("get", 3), ("send", 1), ("get", 2), ("get", 1)]


def test_a_batch_whose_worker_dies_is_done_one_by_one():
    def answer(ray, task):
        if any(job.input.name == "1.wav" for job in task):
            raise ray.exceptions.RayError("Segmentation fault")
        return answer_all(ray, task)

    ray = FakeRay(answer)
    outcomes = {o.job.input.name: o for o in run(ray, make_batches(3, 2))}
    assert [name for name, o in outcomes.items() if o.status == "failed"] == ["1.wav"]
    assert "worker died each time: Segmentation fault" in str(outcomes["1.wav"].error)
    assert len(outcomes) == 5 and ray.options["max_retries"] > 0


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (ModuleNotFoundError("No module named 'avse_ppl'"), "needs the same installation"),
        (ClusterError("no folder '/x'"), "no folder '/x'"),
    ],
)
def test_a_machine_that_cannot_work_ends_the_run(cause, text):
    def answer(ray, task):
        error = ray.exceptions.RayTaskError()
        error.cause = cause
        raise error

    ray = FakeRay(answer)
    with pytest.raises(ClusterError, match=text):
        run(ray, make_batches(1, 1, 1), workers=2)
    assert ray.log[-2:] == [("interrupt", 1), ("kill", 1)]  # the other one


def test_stopping_interrupts_what_runs():
    ray = FakeRay(answer_all)
    outcomes = enhance_on_cluster(ray, make_batches(1, 2), SETUP)
    next(outcomes)
    outcomes.close()
    assert ray.log[-2:] == [("interrupt", 2), ("kill", 2)]


def test_resources_of_workers():
    cpu = choose_resources(FakeRay(None), "auto")
    assert cpu[0] == "cpu" and cpu[1]["num_gpus"] == 0.0 and cpu[1]["num_cpus"] == 1.0
    assert choose_resources(FakeRay(None, gpus=2), "auto")[0] == "cuda"
    assert choose_resources(FakeRay(None, gpus=2), "cpu")[1]["num_gpus"] == 0.0
    with pytest.raises(ClusterError, match="no machine of the cluster has 1 core, 1 GPU"):
        choose_resources(FakeRay(None), "cuda")
    with pytest.raises(ClusterError, match=r"the largest has 1 core, 0 GPU, 0\.5 GiB"):
        choose_resources(FakeRay(None, memory=2**29), "cpu")
    ray = FakeRay(answer_all, gpus=1)
    run(ray, make_batches(1))
    assert ray.setup.settings["device"] == "cuda" and ray.options["num_gpus"] == 1.0


# --- in a worker ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"version": "0.0"}, "version 0.0 of the library|, the command 0.0"),
     ({"folder": Path("/nowhere")}, "has no folder '/nowhere'")],
)  # fmt: skip
def test_a_worker_that_is_not_like_the_others(changes, text, monkeypatch):
    ray = pytest.importorskip("ray")
    fields = {
        "speech": "gaussian",
        "settings": {},
        "video_options": VideoOptions(),
        "folder": Path("/"),
    }
    monkeypatch.setattr(ray, "get", lambda reference: WorkerSetup(**{**fields, **changes}))
    with pytest.raises(ClusterError, match=text):
        prepare_worker.__wrapped__("reference")


class StubbornError(ValueError):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_errors_that_cannot_be_sent():
    job = Job(Path("a.wav"), Path("b.wav"))
    sent = make_portable(Outcome(job, "failed", {}, error=StubbornError(1, 2)))
    assert str(sent.error) == "StubbornError: 1 and 2"
    kept = Outcome(job, "failed", {}, error=ValueError("plain"))
    assert make_portable(kept) is kept


# --- with Ray ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Four batches of two recordings, and the module of a noise model."""
    for i in range(8):
        write(tmp_path / "in" / f"{i}.wav", 0.3 + 0.1 * (i // 2), seed=i)
    (tmp_path / "counted_noise.py").write_text(NOISE)
    return tmp_path


def command(out, *options):
    return [
        sys.executable, "-W", "ignore", "-m", "avse_ppl", "enhance", "in", "-o", out, "--speech",
        "gaussian", "--noise", "counted_noise:counted", "--predictor", "none", *options,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
ON_CLUSTER = ("--cluster", "local", "--workers", "2")


def start(folder, out, *options):
    return subprocess.Popen(
        command(out, *options), cwd=folder, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def enhance_plainly(folder):
    """Folder mode: its results, and how often the noise model was run."""
    assert finish(start(folder, "plain"))[0] == 0
    return read_results(folder / "plain"), count_calls(folder)


def read_results(out):
    assert not [path.name for path in out.iterdir() if path.suffix not in (".wav", ".jsonl")]
    return {path.name: path.read_bytes() for path in out.glob("*.wav")}


def count_calls(folder):
    """How often the noise model was run since the last time."""
    calls = (folder / "calls").stat().st_size
    (folder / "calls").unlink()
    return calls


def list_descendants(process):
    """Processes that descend from one, with their command lines."""
    parents, lines = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(words[1])
            lines[int(place.name)] = (place / "cmdline").read_text()
        except OSError:
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: lines[child] for child in found - {process}}


def wait_for(condition, limit_s=200.0):
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, "took too long"
        time.sleep(0.05)
    return found


def find_working(process):
    return [
        child for child, line in list_descendants(process.pid).items() if "ray::run_task" in line
    ]


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_results_are_those_of_folder_mode(folder):
    pytest.importorskip("ray")
    expected, calls = enhance_plainly(folder)
    (folder / "in" / "none.wav").write_bytes(b"no sound")
    code, out, err = finish(start(folder, "out", *ON_CLUSTER))
    assert code == 2 and "8 enhanced, 1 failed" in out and "none.wav" in err
    assert read_results(folder / "out") == expected and count_calls(folder) == calls
    assert len(err.splitlines()) == 1, err  # Ray says nothing
    (folder / "in" / "none.wav").unlink()
    code, out, err = finish(start(folder, "out", *ON_CLUSTER))
    assert code == 0 and "8 finished before" in out and not (folder / "calls").exists()


@pytest.mark.slow
def test_a_killed_worker_costs_one_batch(folder):
    pytest.importorskip("ray")
    expected, calls = enhance_plainly(folder)
    process = start(folder, "out", *ON_CLUSTER)
    wait_for(lambda: list((folder / "out").glob("*.wav")))
    os.kill(wait_for(lambda: find_working(process))[0], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 0 and "8 enhanced" in out, err
    assert read_results(folder / "out") == expected
    assert 0 < count_calls(folder) - calls <= calls / 3  # a batch of four


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_stops_and_goes_on(folder, sent):
    pytest.importorskip("ray")
    expected, calls = enhance_plainly(folder)
    process = start(folder, "out", *ON_CLUSTER)
    wait_for(lambda: list((folder / "out").glob("*.wav")))
    begun = wait_for(lambda: find_working(process))
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does
        code, _, err = finish(process)
        assert code == 130 and "the same command goes on from there" in err
        assert not list((folder / "out").glob(".*"))
    else:
        process.kill()
        finish(process)
    wait_for(lambda: not any(map(is_running, begun)), 30.0)
    code, out, _ = finish(start(folder, "out", *ON_CLUSTER))
    assert code == 0 and "finished before" in out
    assert read_results(folder / "out") == expected
    assert count_calls(folder) - calls <= calls / 2 + 4  # two batches of four


def test_connection_of_this_process_is_taken(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("it is another's"))
    with connect_cluster("local") as found:
        assert found is ray


def test_no_connection(monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(**options):
        raise RuntimeError("Version mismatch: 1 and 2\nand more")

    monkeypatch.setattr(ray, "init", refuse)
    text = "cluster at 'local': Version mismatch: 1 and 2; where the machine is busy"
    with pytest.raises(ClusterError, match=text), connect_cluster("local"):
        pass
    with (
        pytest.raises(ClusterError, match="'ray start --head' starts one"),
        connect_cluster("auto"),
    ):
        pass
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and cluster.LOCAL == "local"
