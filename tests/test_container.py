"""The Dockerfile: its steps fit the project, and run natively where there is no Docker."""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT

NOT_NATIVE = ("useradd",)  # makes a user of the machine
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_steps() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in lines
        if not line.startswith("#")
    ]


def is_ignored(path: str) -> bool:
    """Whether ``.dockerignore`` keeps a path out: the last of its patterns that fits decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parents = [path, *map(str, Path(path).parents)]
        tails = [path.split("/", i)[-1] for i in range(path.count("/") + 1)]
        deep = pattern.removeprefix("**/")
        places = [*tails, *(part for part in Path(path).parts)] if deep != pattern else parents
        if any(fnmatch.fnmatchcase(place, deep) for place in places if place != "."):
            ignored = not line.startswith("!")
    return ignored


def copy_context(source: str, target: Path) -> None:
    """Copy a file or a folder of the checkout as Docker would."""
    place = ROOT / source
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    files = [path for path in files if not is_ignored(path.relative_to(ROOT).as_posix())]
    assert files, f"COPY {source}: .dockerignore leaves nothing of it"
    for path in files:
        inside = target / path.relative_to(place) if place.is_dir() else target / path.name
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, inside)


def test_the_image_runs_the_command_as_no_root_and_is_of_a_python_that_fits():
    steps = read_steps()
    names = [name for name, _ in steps]
    entry = json.loads(dict(steps)["ENTRYPOINT"])
    assert entry == ["avse-ppl"] and "avse-ppl" in PROJECT["scripts"]
    assert dict(steps)["USER"] not in ("root", "0")
    after = names.index("USER")
    assert ("RUN", "avse-ppl doctor") in steps[after:]  # by that user, who may write only so much
    for name, value in steps:
        if name == "FROM":
            assert value.split()[0] == "python:3.12-slim"
    assert "Programming Language :: Python :: 3.12" in PROJECT["classifiers"]
    (extras,) = [value.split("=")[1] for name, value in steps if value.startswith("EXTRAS")]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    installed = [value for name, value in steps if name == "RUN" and "pip install" in value]
    assert all("--constraint constraints.txt" in value for value in installed)


def test_what_is_sent_to_docker_is_what_the_image_is_made_of():
    copied = [
        source
        for name, value in read_steps()
        if name == "COPY" and "--from" not in value
        for source in value.split()[:-1]
    ]
    assert {"pyproject.toml", "README.md", "LICENSE", "avse_ppl", "constraints.txt"} == set(copied)
    for path in ("avse_ppl/__init__.py", "avse_ppl/models/pretrained/tcvae/weights.safetensors",
                 *(name for name in copied if name != "avse_ppl")):  # fmt: skip
        assert (ROOT / path).exists() and not is_ignored(path), path
    for path in (".git/HEAD", ".venv/bin/python", "out/noisy.wav", "tests/helpers.py", "docs/a.md",
                 "shared/a.wav", "avse_ppl/__pycache__/a.pyc", "avse_ppl/cli/a.pyc"):  # fmt: skip
        assert is_ignored(path), path


@pytest.mark.slow
def test_the_steps_run_natively(tmp_path):
    """Each RUN in turn, in folders of their own, and then the entry point.

    Nothing is fetched: pip takes the wheel without its dependencies, which are linked from the
    environment of the tests, as ``.ci/run`` does.
    """
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    link = [sys.executable, str(ROOT / "scripts" / "link_dependencies.py"), tmp_path / "venv"]
    from setuptools import __file__ as setuptools

    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    shutil.copytree(Path(setuptools).parent, site / "setuptools", dirs_exist_ok=True)
    environment = {
        "PATH": f"{python.parent}:/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(tmp_path),
        "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    stages: list[Path] = []
    names: dict[str, Path] = {}
    folder, run = tmp_path, []
    for name, value in read_steps():
        words = shlex.split(value)
        if name == "FROM":
            stages.append(tmp_path / f"stage{len(stages)}")
            names[words[-1]] = stages[-1]
        elif name == "WORKDIR":
            folder = stages[-1] / value.lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
        elif name in ("ARG", "ENV"):
            environment |= dict(word.split("=", 1) for word in words)
        elif name == "COPY" and words[0].startswith("--from="):
            source = names[words[0].removeprefix("--from=")] / words[1].lstrip("/")
            shutil.copytree(source, folder / words[2])
        elif name == "COPY":
            for source in words[:-1]:
                is_folder = (ROOT / source).is_dir()
                copy_context(source, folder / words[-1] if is_folder else folder)
        elif name == "RUN" and words[0] not in NOT_NATIVE:
            if words[0] == "avse-ppl":
                subprocess.run(link, check=True, capture_output=True)
            done = subprocess.run(
                ["/bin/sh", "-ec", value], cwd=folder, env=environment, capture_output=True,
                text=True,
            )  # fmt: skip
            assert done.returncode == 0, f"{value}\n{done.stdout}\n{done.stderr}"
            run.append(value)
    assert len(run) == 5 and "torch" in done.stdout and str(ROOT) not in done.stdout
    steps = dict(read_steps())
    entry = [str(python.parent / json.loads(steps["ENTRYPOINT"])[0]), *json.loads(steps["CMD"])]
    shown = subprocess.run(entry, env=environment, capture_output=True, text=True, check=True)
    assert "enhance" in shown.stdout
    weights = site / "avse_ppl" / "models" / "pretrained" / "tcvae" / "weights.safetensors"
    assert weights.exists() and os.access(weights, os.R_OK)
