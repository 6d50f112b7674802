"""Check and run the teaching notebooks in ``examples/notebooks``.

Each is a pair: ``NN_title.py`` in jupytext's percent format, which is written by hand, and
``NN_title.ipynb``, which is made from it and holds the outputs.
``python scripts/notebooks.py --run 03`` executes 03 and rewrites its ``.ipynb``; ``--check`` says
what is wrong with the pairs; ``--reduced`` executes with fewer steps, two at a time, and throws the
outputs away. Without numbers, all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from avse_ppl.utils.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "examples" / "notebooks"
MOST_BYTES = 900_000
CELL_S = 600  # after which a cell has failed
AT_ONCE = 2
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    "jupytext": {"formats": "ipynb,py:percent"},
}
HEADER = """\
# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---
"""
# A path of the machine that ran it says nothing to a reader; sounds and pictures are no text.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|opt|mnt|var|content)/[\w.]+")
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=]+")


def list_sources(numbers: list[str]) -> list[Path]:
    """List the ``.py`` of the notebooks with these numbers, of all of them without any.

    Raises
    ------
    ValueError
        If a number fits none of them.
    """
    found = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    for number in numbers:
        if not any(path.name.startswith(number) for path in found):
            names = ", ".join(path.stem for path in found)
            raise ValueError(f"expected the beginning of one of {names}; found {number!r}")
    return [path for path in found if not numbers or path.name.startswith(tuple(numbers))]


def read_source(path: Path) -> NotebookNode:
    """Read a ``.py`` as a notebook without outputs, which depends on its text alone."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index:02d}", NotebookNode()
    return notebook


# --- checks --------------------------------------------------------------------------------------


def check_pair(path: Path) -> list[str]:
    """List what is wrong with a pair, given its ``.py``.

    Parameters
    ----------
    path
        ``NN_title.py``; its ``.ipynb`` is expected beside it.

    Returns
    -------
    list of str
        What is wrong, and how to put it right.
    """
    again = f"run `python scripts/notebooks.py --run {path.name[:2]}`"
    outputs_path = path.with_suffix(".ipynb")
    problems = []
    if not path.read_text(encoding="utf-8").startswith(HEADER):
        problems.append("the .py does not begin with the header of the other notebooks")
    source = read_source(path)
    if not any(re.search(r"^\s*%pip install", text, re.M) for _, text in list_cells(source)):
        problems.append("it does not install the library: no `# %pip install ...` in the .py")
    if not outputs_path.exists():
        return [*problems, f"has no .ipynb; {again}"]
    size = outputs_path.stat().st_size
    if size > MOST_BYTES:
        problems.append(
            f"the .ipynb has {size} bytes, more than {MOST_BYTES}; fewer or smaller pictures"
        )
    notebook = nbformat.read(outputs_path, as_version=4)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        problems.append(f"the .ipynb is no valid notebook: {error}")
    pairs = list(zip(list_cells(source), list_cells(notebook), strict=False))
    differing = [str(index) for index, (left, right) in enumerate(pairs) if left != right]
    if differing or len(source.cells) != len(notebook.cells):
        which = f"in cells {', '.join(differing)}" if differing else "in how many cells they have"
        problems.append(f"the .py and the .ipynb differ {which}; {again}")
    return problems + [f"{problem}; {again}" for problem in check_outputs(notebook)]


def list_cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    """List kind and text of all cells."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def check_outputs(notebook: NotebookNode) -> list[str]:
    """List what is wrong with the outputs of a notebook."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    problems = []
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        problems.append("its cells were not executed in turn")
    if not any("image/png" in output.get("data", {}) for output in outputs):
        problems.append("it shows no picture")
    for output in outputs:
        if output.output_type == "error":
            problems.append(f"a cell failed: {output.ename}: {output.evalue}")
        data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        text = DATA_URI.sub("", f"{output.get('text', '')}{json.dumps(data)}")
        problems += [f"an output names {found}" for found in MACHINE_PATH.findall(text)]
    return problems


# --- execution -----------------------------------------------------------------------------------


async def execute_notebook(path: Path, folder: Path, env: dict[str, str]) -> NotebookNode:
    """Execute a notebook from its ``.py``, in an empty folder.

    Parameters
    ----------
    path
        The ``.py``.
    folder
        Where its kernel runs.
    env
        Environment of its kernel.

    Returns
    -------
    NotebookNode
        With its outputs, of which pictures are made small.

    Raises
    ------
    CellExecutionError
        If a cell fails.
    """
    notebook = read_source(path)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=CELL_S, startup_timeout=CELL_S,
        record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # else it warns of TCP on this machine
    )  # fmt: skip
    await client.async_execute(env=env)
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its versions
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        # How long it takes is a matter of the machine, and so is the library's warning of it.
        cell.outputs = [
            output
            for output in cell.get("outputs", [])
            if "LongRunWarning" not in output.get("text", "")
        ]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = shrink_png(data["image/png"])
    return notebook


def shrink_png(encoded: str) -> str:
    """Reduce a PNG in base64 to 256 colours where that makes it smaller."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    buffer = io.BytesIO()
    # Without dithering, which makes areas of one colour speckled and the file larger.
    reduced = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    reduced.save(buffer, "PNG", optimize=True)
    shrunk = base64.b64encode(buffer.getvalue()).decode()
    return min(shrunk, encoded, key=len)


async def execute_all(paths: list[Path], *, reduced: bool) -> bool:
    """Execute notebooks and print the seconds of each; returns whether all went well.

    Parameters
    ----------
    paths
        The ``.py`` of each.
    reduced
        Two at a time with fewer steps, in a scratch folder. Otherwise one by one, and each
        ``.ipynb`` is rewritten.
    """
    # Progress bars are plain text without ipywidgets, which is said at each import of tqdm.
    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}
    env = {**os.environ, **quiet, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("AVSE_PPL_REDUCED", None)
    if reduced:
        env["AVSE_PPL_REDUCED"] = "1"
    gate = asyncio.Semaphore(AT_ONCE if reduced else 1)

    async def execute_one(path: Path) -> bool:
        async with gate:
            start_s, start_cpu_s = time.monotonic(), measure_cpu_s()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    notebook = await execute_notebook(path, Path(folder), env)
                except (CellExecutionError, TimeoutError, RuntimeError) as error:
                    print(f"FAIL {path.stem}\n{error}", file=sys.stderr, flush=True)
                    return False
            seconds, cpu_s = time.monotonic() - start_s, measure_cpu_s() - start_cpu_s
        if not reduced:
            with atomic_path(path.with_suffix(".ipynb")) as place:
                nbformat.write(notebook, place)
        # Two at a time, the processor time of one cannot be told from that of the other.
        cost = "" if reduced else f", {cpu_s:.0f} s of one core"
        print(f"ok   {path.stem}: {seconds:.0f} s{cost}", flush=True)
        return True

    return all(await asyncio.gather(*(execute_one(path) for path in paths)))


def measure_cpu_s() -> float:
    """Measure the processor time of all kernels that have ended, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Do what is asked for; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="Check and run the teaching notebooks.")
    parser.add_argument("numbers", nargs="*", help="such as 03; by default all of them")
    parser.add_argument("--run", action="store_true", help="execute, and rewrite each .ipynb")
    parser.add_argument("--check", action="store_true", help="check the pairs as they are")
    parser.add_argument("--reduced", action="store_true", help="execute with fewer steps")
    arguments = parser.parse_args()
    if not (arguments.run or arguments.check or arguments.reduced):
        parser.error("expected one of --run, --check and --reduced")
    try:
        paths = list_sources(arguments.numbers)
    except ValueError as error:
        parser.error(str(error))
    well = True
    if arguments.run:
        well &= asyncio.run(execute_all(paths, reduced=False))
    if arguments.check:
        for path in paths:
            for problem in check_pair(path):
                well = False
                print(f"FAIL {path.stem}: {problem}", file=sys.stderr, flush=True)
    if arguments.reduced:
        start_s = time.monotonic()
        well &= asyncio.run(execute_all(paths, reduced=True))
        print(f"all reduced: {time.monotonic() - start_s:.0f} s", flush=True)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
