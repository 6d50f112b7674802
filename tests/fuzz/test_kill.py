"""Jobs killed at random moments and resumed until they are done; two at once on one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.fuzz.kill import TASKS
from tests.helpers import ROOT


def kill(kills, seed, *options):
    """Run the campaigns in a process of their own, which may fork."""
    words = ["--kills", str(kills), "--seed", str(seed), *options]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kill", *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [result["task"] for result in results] == list(TASKS), done.stderr
    assert [result["loss"] for result in results if "loss" in result] == []
    assert done.returncode == 0, done.stderr
    return results


@pytest.mark.slow
def test_a_few_kills():
    results = kill(2, 0, "--two", "enhance")
    assert all(result["kills"] >= 2 for result in results)


@pytest.mark.slow
def test_a_hundred_kills():
    results = kill(25, 1)
    assert sum(result["kills"] for result in results) >= 100
    # Again is done what was in flight: a batch of up to three, a clip, an epoch.
    batch = {"enhance": 3, "prepare": 1, "train": 1, "save": 0}
    for result in results:
        assert result["begun again"] <= result["kills"] * batch[result["task"]]
