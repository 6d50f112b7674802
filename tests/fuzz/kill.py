"""Kill campaigns: SIGKILL at random moments, resume until done, compare with an undisturbed run.

``python -m tests.fuzz.kill --kills 100`` runs all tasks. Everything that the tasks need is imported
once, and each attempt is a forked child: killed after a random time, or before a random change of
the file system.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

RATE_HZ = 16000
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock", "os.truncate")
_CHILD_S = 120.0
_TRIES = 4000
_FEW = 5  # kills, for which the time of a run need not be known well
_MOST_KILLS = 8  # of one run, which then is left in peace


class LossError(Exception):
    """Something was lost, redone or left behind."""


class Task(ABC):
    """A long job that resumes.

    Parameters
    ----------
    inputs
        Folder for its inputs, which are made here.
    """

    name: ClassVar[str]

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        self.make_inputs()

    @abstractmethod
    def make_inputs(self) -> None:
        """Make what it reads, and import what it needs."""

    @abstractmethod
    def run(self, out: Path, note: Callable[[str], None]) -> None:
        """Do it, or what is left of it; `note` each part that is begun."""

    @abstractmethod
    def list_finished(self, out: Path) -> set[str]:
        """List the parts that are finished, by the names under which they are noted."""

    def describe(self, path: Path) -> Any:
        """Content of a file of the result, without times and costs."""
        return path.read_bytes()


def make_wave(seed: int, seconds: float) -> np.ndarray:
    """Make a tone in noise."""
    random, time_s = np.random.default_rng(seed), np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tone = np.sin(2 * np.pi * 200 * (1 + seed) * time_s)
    return (0.2 * tone + 0.05 * random.standard_normal(len(time_s))).astype("float32")


def write_waves(folder: Path, count: int, seconds: float) -> list[Path]:
    """Write recordings of slightly different length."""
    import soundfile

    folder.mkdir(parents=True)
    paths = [folder / f"{i}.wav" for i in range(count)]
    for i, path in enumerate(paths):
        soundfile.write(path, make_wave(i, seconds * (1 + 0.2 * i)), RATE_HZ, "FLOAT")
    return paths


def known_noise(frames: Any) -> Any:
    """White noise of known power."""
    from avse_ppl import ComplexNormal

    return ComplexNormal(0.0, 0.3)


class EnhanceTask(Task):
    """``enhance`` on a folder of recordings, with posteriors."""

    name = "enhance"

    def make_inputs(self) -> None:
        write_waves(self.inputs / "noisy", 3, 0.1)
        self.options = {"speech": "gaussian", "noise": known_noise, "device": "cpu",
                        "inference": "exact", "draws": 2}  # fmt: skip

    def run(self, out: Path, note: Callable[[str], None]) -> None:
        from avse_ppl.pipeline import enhance, enhance_files
        from avse_ppl.pipeline.jobs import plan_jobs

        real = enhance.Enhancer.enhance

        def noted(enhancer: Any, observations: Any) -> Any:
            lengths = {one.audio.n_samples for one in observations}
            for path in sorted((self.inputs / "noisy").iterdir()):
                if (path.stat().st_size - 80) // 4 in lengths:
                    note(path.name)
            return real(enhancer, observations)

        enhance.Enhancer.enhance = noted
        plan = plan_jobs([self.inputs / "noisy"], out / "wav", out / "nc")
        outcomes = list(enhance_files.enhance_files(plan, **self.options))
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error

    def list_finished(self, out: Path) -> set[str]:
        from avse_ppl.pipeline.enhance_files import RESUME_LOG
        from avse_ppl.pipeline.resume_log import ResumeLog

        return set(ResumeLog(out / "wav" / RESUME_LOG, {}).records)

    def describe(self, path: Path) -> Any:
        from avse_ppl.pipeline.resume_log import ResumeLog, parse_record

        if path.suffix == ".nc":
            from avse_ppl import Posterior

            posterior = Posterior.load(path)
            arrays = {name: getattr(posterior, name) for name in ("mean", "variance", "speech")}
            return describe_arrays({**arrays, **posterior.latents})
        if path.suffix == ".jsonl":
            torn = [line for line in path.read_bytes().splitlines() if parse_record(line) is None]
            records = ResumeLog(path, {}).records
            for record in records.values():
                record["details"] = {**record["details"], "cost": None, "posterior": None}
            return json.dumps(records, sort_keys=True), torn
        return path.read_bytes()


class PrepareTask(Task):
    """``prepare`` of a corpus of a few recordings."""

    name = "prepare"

    def make_inputs(self) -> None:
        from avse_ppl.data import Clip

        self.clips = [
            Clip(path, "made up", f"s{i}", "train")
            for i, path in enumerate(write_waves(self.inputs / "corpus", 3, 0.2))
        ]

    def run(self, out: Path, note: Callable[[str], None]) -> None:
        from avse_ppl.data import clip_features, prepare

        real = clip_features.store_features

        def noted(path: Path, arrays: Any) -> None:
            note(path.name)
            real(path, arrays)

        clip_features.store_features = noted
        prepare(self.clips, out / "corpus")

    def list_finished(self, out: Path) -> set[str]:
        return {
            path.name for path in (out / "corpus.pieces").glob("*/*.npz") if path.name[0] != "."
        }

    def describe(self, path: Path) -> Any:
        if path.suffix == ".npz":
            with np.load(path) as stored:
                return describe_arrays({name: stored[name] for name in stored.files})
        return path.read_bytes()


class TrainTask(Task):
    """``train`` of a small network in two phases."""

    name = "train"

    def make_inputs(self) -> None:
        from avse_ppl.data import Clip, build_cache
        from avse_ppl.training import Recipe, TrainingData

        paths = write_waves(self.inputs / "corpus", 8, 0.3)
        splits = ["dev" if i % 4 == 3 else "train" for i in range(8)]
        speech = [Clip(path, "made up", f"s{i}", splits[i]) for i, path in enumerate(paths)]
        noise = [Clip(path, "made up", "", splits[i], "hum") for i, path in enumerate(paths)]
        data = [build_cache(clips, self.inputs / name, RATE_HZ)
                for name, clips in (("speech", speech), ("noise", noise))]  # fmt: skip
        self.data = TrainingData(data[0], data[1])
        self.recipe = Recipe(
            "vae", {"latent": 2, "hidden": (8,)}, crop_s=0.2, batch=4, epochs=2,
            kl_warmup_epochs=1, encoder_epochs=2, encoder_batch=4,
        )  # fmt: skip

    def run(self, out: Path, note: Callable[[str], None]) -> None:
        from avse_ppl import Stft
        from avse_ppl.training import train_vae
        from avse_ppl.training.objective import Objective

        def on_train_epoch_start(objective: Any) -> None:
            phase = {"VaeTraining": "speech", "EncoderTraining": "encoder"}[
                type(objective).__name__
            ]
            note(f"{phase} {objective.current_epoch}")

        Objective.on_train_epoch_start = on_train_epoch_start
        stft = Stft(128, 32)
        train_vae(self.recipe, self.data, out / "w", name="tiny", card={}, stft=stft)

    def list_finished(self, out: Path) -> set[str]:
        from avse_ppl.training.checkpoints import read_checkpoint

        places = {phase: out / "w" / "checkpoints" / phase / "last.ckpt"
                  for phase in ("speech", "encoder")}  # fmt: skip
        return {
            f"{phase} {epoch}"
            for phase, path in places.items()
            if path.exists()
            for epoch in range(read_checkpoint(path)["epoch"] + 1)
        }

    def describe(self, path: Path) -> Any:
        if path.suffix == ".md":
            return "a card, with times"
        if path.suffix == ".ckpt":
            from avse_ppl.training.checkpoints import read_checkpoint

            state = read_checkpoint(path)["state_dict"]
            return describe_arrays({key: value.numpy() for key, value in state.items()})
        return path.read_bytes()


class SaveTask(Task):
    """Writing a posterior over another one."""

    name = "save"

    def make_inputs(self) -> None:
        from avse_ppl import ComplexNormal, Exact, GaussianSpeech, Scene, Stft

        prior = GaussianSpeech(stft=Stft(n_fft=64, hop=16), gain_sd_db=0.0)
        scene = Scene(prior, lambda frames: ComplexNormal(0.0, 1.0))
        self.posteriors = [Exact(draws=2)(scene, make_wave(i, 0.05), seed=i) for i in range(4)]

    def run(self, out: Path, note: Callable[[str], None]) -> None:
        for posterior in self.posteriors:
            posterior.save(out / "p.nc")

    def list_finished(self, out: Path) -> set[str]:
        if (out / "p.nc").exists():
            found = self.describe(out / "p.nc")
            if found not in [describe_arrays({"mean": one.mean}) for one in self.posteriors]:
                raise LossError("the posterior is none of those that were written")
        return set()

    def describe(self, path: Path) -> Any:
        from avse_ppl import Posterior

        return describe_arrays({"mean": Posterior.load(path).mean})


TASKS: dict[str, type[Task]] = {
    one.name: one for one in (EnhanceTask, PrepareTask, TrainTask, SaveTask)
}


def describe_arrays(arrays: dict[str, np.ndarray]) -> str:
    """Digest of named arrays."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        value = np.ascontiguousarray(value)
        digest.update(f"{name} {value.shape} {value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


def describe_folder(task: Task, out: Path) -> dict[str, Any]:
    """Content of every file below a folder, hidden ones among them."""
    return {
        str(path.relative_to(out)): task.describe(path) if path.name[0] != "." else "hidden"
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


# --- children ------------------------------------------------------------------------------------


@dataclass
class Child:
    """A forked child that does a task.

    Parameters
    ----------
    task, out
        What it does, and where.
    changes
        Before which change of the file system it kills itself; 0 for never.
    patient
        Whether it tries again while another one writes into the folder.
    """

    task: Task
    out: Path
    changes: int = 0
    patient: bool = False
    process: int = field(init=False)
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            self.log = Path(file.name)
        self.process = os.fork()
        if self.process == 0:
            self._work()

    def _work(self) -> None:
        """Do the task, and end the process."""
        code = 1
        try:
            handle = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            count_changes(self.out, self.changes, handle)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for _ in range(_TRIES):
                    try:
                        known = set(sys.modules)
                        self.task.run(self.out, lambda text: write(handle, f"begun {text}"))
                        for name in set(sys.modules) - known:
                            write(handle, f"module {name}")
                        code = 0
                        break
                    except BlockingIOError as error:
                        write(handle, f"refused {error}")
                        if not self.patient:
                            raise
                        time.sleep(0.1)
        except BaseException:
            write(handle, traceback.format_exc())
        finally:
            os._exit(code)

    def wait(self, kill_after_s: float | None = None) -> bool:
        """Wait for the end, or kill it; whether it was killed.

        Raises
        ------
        LossError
            If it failed.
        """
        begin, limit_s = time.monotonic(), _CHILD_S if kill_after_s is None else kill_after_s
        while True:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                break
            if time.monotonic() - begin > limit_s:
                os.kill(self.process, signal.SIGKILL)
                _, status = os.waitpid(self.process, 0)
                if kill_after_s is None:
                    raise LossError(f"{self.task.name} hangs")
                break
            time.sleep(0.001)
        if status == signal.SIGKILL:
            return True
        if status:
            raise LossError(f"{self.task.name} failed: {self.log.read_text()[-2000:]}")
        return False

    def read_log(self, word: str) -> list[str]:
        """What it wrote down: parts begun, refusals, or the number of changes."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def write(handle: int, text: str) -> None:
    """Append a line."""
    os.write(handle, f"{text}\n".encode())


def count_changes(out: Path, last: int, handle: int) -> None:
    """Count the changes of files below a folder, and die before one of them."""
    made = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal made
        if event == "open":
            path, _, flags = arguments
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                return
            if not str(path).startswith(str(out)):
                return
        elif event not in _CHANGES or (
            event != "fcntl.flock" and not str(arguments[0]).startswith(str(out))
        ):
            return
        made += 1
        write(handle, f"change {event}")
        if made == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


# --- campaigns -----------------------------------------------------------------------------------


def run_campaign(task: Task, folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill a task so many times, in as many runs as that takes; what was done.

    Raises
    ------
    LossError
        If a result differs from the undisturbed one, a finished part is begun again, or files are
        left behind.
    """
    random = np.random.default_rng(seed)
    expected: dict[str, Any] = {}
    for which in range(1 if kills < _FEW else 2):  # the second time without imports
        whole = folder / f"whole{which}"
        whole.mkdir(parents=True)
        child, begin = Child(task, whole), time.monotonic()
        child.wait()
        seconds, changes = time.monotonic() - begin, len(child.read_log("change"))
        found = describe_folder(task, whole)
        compare(task, expected or found, found)
        expected = found
        for name in child.read_log("module"):  # so that the children need not
            with suppress(ImportError):
                importlib.import_module(name)
    done = {"kills": 0, "runs": 0, "begun again": 0, "changes": changes}
    while done["kills"] < kills:
        out = folder / f"run{done['runs']}"
        out.mkdir()
        begun: list[str] = []
        for attempt in range(_MOST_KILLS + 1):
            finished = task.list_finished(out)
            share = random.random()
            if attempt == min(kills, _MOST_KILLS):
                child = Child(task, out)
                killed = child.wait()
            elif random.random() < 0.5:
                child = Child(task, out, changes=1 + int(share * changes))
                killed = child.wait()
            else:
                child = Child(task, out)
                killed = child.wait(share * seconds)
            now = child.read_log("begun")
            if finished & set(now):
                raise LossError(f"{task.name}: {sorted(finished & set(now))} are done again")
            begun += now
            done["kills"] += killed
            if not killed:
                break
        done["runs"] += 1
        done["begun again"] += len(begun) - len(set(begun))
        compare(task, expected, describe_folder(task, out))
        child.log.unlink()
    return done


def run_two_at_once(task: Task, folder: Path) -> int:
    """Start a task twice at once on one folder; how often one was refused.

    Raises
    ------
    LossError
        If the result differs from that of one run.
    """
    whole, out = folder / "one", folder / "two"
    for place in (whole, out):
        place.mkdir(parents=True)
    Child(task, whole).wait()
    children = [Child(task, out, patient=True) for _ in range(2)]
    for child in children:
        child.wait()
    compare(task, describe_folder(task, whole), describe_folder(task, out))
    refusals = [line for child in children for line in child.read_log("refused")]
    if not all("another run is writing into" in line for line in refusals):
        raise LossError(f"{task.name}: refused by {refusals}")
    return len(refusals)


def compare(task: Task, expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise `LossError` unless two results are the same."""
    if set(found) != set(expected):
        raise LossError(f"{task.name}: files {sorted(set(found) ^ set(expected))}")
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong:
        raise LossError(f"{task.name}: other content of {wrong}")


def main() -> int:
    """Run campaigns on the command line; prints a line of JSON for each task."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="of each task")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--two", nargs="*", choices=list(TASKS), default=["enhance", "prepare", "train"],
        help="tasks that are also started twice at once",
    )  # fmt: skip
    options = parser.parse_args()
    import logging

    import torch

    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    failed = 0
    for name in options.tasks:
        with tempfile.TemporaryDirectory() as scratch:
            begin, result = time.monotonic(), {"task": name}
            try:
                task = TASKS[name](Path(scratch, "inputs"))
                result |= run_campaign(task, Path(scratch, "out"), options.kills, options.seed)
                if name in options.two:
                    result["refused"] = run_two_at_once(task, Path(scratch, "both"))
            except LossError as error:
                result["loss"], failed = str(error), 1
            result["seconds"] = round(time.monotonic() - begin, 1)
            print(json.dumps(result), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
