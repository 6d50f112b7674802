"""Completion in a shell: installed as documented, bash completes commands and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_cli

COMMAND = Path(sys.executable).with_name("avse-ppl")
# What bash does at the tabulator key: it calls the function that is registered for the command.
PRESS_TAB = r"""
source "$HOME/.bashrc"
[[ $(complete -p avse-ppl) =~ -F\ ([a-z_]+) ]] || exit 3
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
"${BASH_REMATCH[1]}" avse-ppl
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(
    shutil.which("bash") is None or not COMMAND.exists(), reason="needs bash, and avse-ppl"
)
def test_bash_completes_once_completion_is_installed(tmp_path):
    environment = {"HOME": str(tmp_path), "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
                   "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}  # fmt: skip

    def run(*words: str) -> str:
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    def press_tab(*words: str) -> list[str]:
        return run("bash", "-c", PRESS_TAB, "bash", "avse-ppl", *words).split()

    # From bash, as a user does: it is for the shell that the command is called from.
    install = "avse-ppl --install-completion && true"  # a last command alone would replace bash
    assert "completion installed in" in run("bash", "-c", install)
    assert press_tab("en") == ["enhance"]
    assert {"report", "reliability"} == set(press_tab("re"))
    assert press_tab("enhance", "--noi") == ["--noise"]
    assert press_tab("enhance", "noisy.wav", "--device", "cu") == ["cuda"]


def test_help_names_the_options_of_completion():
    shown = run_cli("--help").stdout
    assert "--install-completion" in shown and "--show-completion" in shown
