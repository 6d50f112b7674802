"""The example of a Slurm job array, without Slurm: every recording once, whatever the tasks."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import soundfile

from tests.helpers import RATE_HZ, ROOT

SCRIPT = ROOT / "examples" / "06_slurm_array.py"


def run_task(monkeypatch, task, tasks, *words):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
    monkeypatch.setattr("sys.argv", [str(SCRIPT), str(tasks), *map(str, words)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as error:
        return error.code
    return 0


@pytest.mark.parametrize("ending", [".scp", ".csv"])
def test_every_recording_once(ending, tmp_path, monkeypatch):
    names = [f"utt{i}" for i in range(5)]
    lines = ["id,audio"] if ending == ".csv" else []
    for i, name in enumerate(names):
        noise = 0.1 * np.random.default_rng(i).standard_normal(RATE_HZ // 4)
        soundfile.write(tmp_path / f"{name}.wav", noise, RATE_HZ)
        lines.append(f"{name},{name}.wav" if ending == ".csv" else f"{name} {name}.wav")
    manifest = tmp_path / f"list{ending}"
    manifest.write_text("\n".join(lines))
    for task in range(2):
        code = run_task(
            monkeypatch, task, 2, manifest, tmp_path / "out", "--speech", "gaussian",
            "--noise", "stationary", "--predictor", "none", "--draws", "2",
        )  # fmt: skip
        assert not code
    shares = [sorted(p.stem for p in (tmp_path / "out" / n).glob("*.wav")) for n in ("000", "001")]
    assert shares == [["utt0", "utt2", "utt4"], ["utt1", "utt3"]]
    listed = (tmp_path / "out" / "000" / f"list-000-of-002{ending}").read_text()
    assert all(name in listed for name in shares[0]) and "utt1" not in listed
    assert run_task(monkeypatch, 7, 8, manifest, tmp_path / "none") == 0  # none left for it
    assert not (tmp_path / "none").exists()


def test_without_slurm(monkeypatch):
    assert "is none of 0 to 1" in run_task(monkeypatch, 2, 2, "wav.scp", "out")
    assert "expected a number of tasks" in run_task(monkeypatch, 2, "all", "wav.scp", "out")
    assert "SLURM_ARRAY_TASK_ID, found ''" in run_task(monkeypatch, "", 2, "wav.scp", "out")
    assert "usage" in run_task(monkeypatch, 0, 2, "wav.scp")


def test_options_that_slurm_reads():
    # Slurm takes lines that begin with these characters exactly, before the first line of code.
    lines = SCRIPT.read_text(encoding="utf-8").split('"""')[0].splitlines()
    assert [line.split("=")[0] for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --array", "#SBATCH --cpus-per-task", "#SBATCH --mem", "#SBATCH --time",
    ]  # fmt: skip
