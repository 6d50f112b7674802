"""The few rules that keep the house in order: layers, names, imports, versions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import avse_ppl

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "avse_ppl"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ("models", "inference")

LOADED_ONLY_WHERE_USED = {
    "arviz",
    "av",
    "cv2",
    "h5netcdf",
    "insightface",
    "jax",
    "librosa",
    "lightning",
    "matplotlib",
    "numpyro",
    "onnxruntime",
    "pesq",
    "pystoi",
    "pytorch_lightning",
    "torchaudio",
    "torchmetrics",
    "xarray",
}


def module_name(path: Path) -> str:
    """`avse_ppl/models/scene.py` -> `avse_ppl.models.scene`; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, path: Path) -> set[str]:
    """Every dotted name that `source` imports at any depth, relative imports resolved."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def within(names: set[str], module: str) -> set[str]:
    return {name for name in names if name == module or name.startswith(f"{module}.")}


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("source", "path", "found"),
    [
        ("from ..inference import svi", "models/vae.py", "avse_ppl.inference.svi"),
        ("from ..inference.svi import SVI", "models/vae.py", "avse_ppl.inference.svi"),
        ("from .. import inference", "models/__init__.py", "avse_ppl.inference"),
        ("from ... import inference", "models/networks/mlp.py", "avse_ppl.inference"),
        ("def f():\n    import avse_ppl.cli as c", "signal/audio.py", "avse_ppl.cli"),
        ("from avse_ppl import cli", "signal/audio.py", "avse_ppl.cli"),
        ("from . import cli", "__init__.py", "avse_ppl.cli"),
    ],
)
def test_imports_are_found_in_every_spelling(source: str, path: str, found: str) -> None:
    assert found in imported(source, PACKAGE / path)


def test_models_never_import_inference() -> None:
    models = [path for path in SOURCES if path.is_relative_to(PACKAGE / "models")]
    assert models
    guilty = {
        module_name(path): found
        for path in models
        if (found := within(imported(path.read_text(), path), "avse_ppl.inference"))
    }
    assert not guilty


def test_nothing_imports_the_command_line() -> None:
    guilty = [
        module_name(path)
        for path in SOURCES
        if not path.is_relative_to(PACKAGE / "cli")
        and path.name != "__main__.py"
        and within(imported(path.read_text(), path), "avse_ppl.cli")
    ]
    assert not guilty


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_library_code_has_no_assert(path: Path) -> None:
    lines = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)]
    assert not lines, f"raise ValueError or TypeError instead of assert, lines {lines}"


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("cwd", [ROOT, PACKAGE], ids=["by the link", "from inside the package"])
def test_a_room_refuses_a_second_identity(room: str, cwd: Path) -> None:
    if cwd == ROOT and not (ROOT / room).is_dir():
        pytest.skip("the clone does not have links")
    finished = python(f"import {room}", cwd)
    assert finished.returncode == 1
    assert finished.stderr.rstrip().endswith(f"ImportError: import avse_ppl.{room}")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_by_its_own_name(room: str) -> None:
    finished = python(f"import avse_ppl.{room} as m; print(m.__name__)")
    assert finished.stdout.strip() == f"avse_ppl.{room}", finished.stderr


def test_import_is_light() -> None:
    finished = python("import avse_ppl, sys; print(*sorted(m.split('.')[0] for m in sys.modules))")
    loaded = set(finished.stdout.split())
    assert "torch" in loaded, finished.stderr
    assert not loaded & LOADED_ONLY_WHERE_USED


def test_every_public_name_is_there_and_documented() -> None:
    missing = [name for name in avse_ppl.__all__ if not hasattr(avse_ppl, name)]
    assert not missing
    silent = [
        name
        for name in avse_ppl.__all__
        if callable(getattr(avse_ppl, name)) and not getattr(avse_ppl, name).__doc__
    ]
    assert not silent


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation is not None
    assert avse_ppl.__version__ == project == citation[1]


def test_constraints_pin_exactly_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    pin = re.compile(r"[a-z0-9-]+==[0-9][\w.]*( ; python_version (<|>=) \"3\.12\")?")
    assert pins
    assert [line for line in pins if not pin.fullmatch(line)] == []
