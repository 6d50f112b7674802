"""README and docs: their Python runs, their commands parse, their links lead somewhere.

The Python blocks of a page run in turn, in a folder with short recordings under the names that the
pages use. Public names of the package, a ``wave`` and the ``lips`` of ``clip.mkv`` are there from
the start. A block that cannot run stands after a comment that says why:
``<!-- not run: takes hours -->``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import avse_ppl
from avse_ppl.video import read_lips
from tests.helpers import BUNDLED, RATE_HZ, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FAST = re.compile(r"README\.md|docs/(index\.md|concepts/.*|guides/.*)")
BLOCK = re.compile(
    r"(?P<reason><!-- not run: .+? -->\n+)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)|!\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:avse_ppl|tests|docs|benchmarks|scripts|examples)/[\w/.-]+)`")
INLINE = re.compile(r"`(avse-ppl [^`\n]+)`")
NOISES = """
from avse_ppl import ComplexNormal
from pyroapi import distributions as dist
from pyroapi import pyro

def heavy_tailed_noise(frames):
    return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(-1.0, 1.0)))
"""


def list_blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """The line and the text of each block that is to run."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start("text")), found["text"])
        for found in BLOCK.finditer(text)
        if found["language"] in languages and not found["reason"]
    ]


def list_commands(text: str) -> list[list[str]]:
    """The commands of ``avse-ppl`` in a block of a shell, word by word, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [row[1:] for row in words if row and row[0] == "avse-ppl"]


def write_recordings(folder: Path) -> np.ndarray:
    """Write what the pages name: half a second of noisy speech, and videos of a mouth."""
    for path in BUNDLED.iterdir():
        shutil.copy(path, folder)
    shutil.copy(BUNDLED / "mouth.mkv", folder / "clip.mkv")
    speech = avse_ppl.load_audio(BUNDLED / "speech.flac").samples[RATE_HZ : RATE_HZ * 3 // 2]
    noisy = speech + 0.02 * np.random.default_rng(0).standard_normal(len(speech)).astype("float32")
    (folder / "out").mkdir()
    for name, samples in (("noisy", noisy), ("clean", speech), ("enhanced", noisy)):
        for place in (folder, folder / "out"):
            avse_ppl.save_audio(place / f"{name}.wav", avse_ppl.Audio(samples, RATE_HZ))
    (folder / "my_noise.py").write_text(NOISES)
    return noisy


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name, marks=[] if FAST.fullmatch(name) else pytest.mark.slow)
        for page, name in zip(PAGES, NAMES, strict=True)
        if list_blocks(page, "python")
    ],
)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wave = write_recordings(tmp_path)
    names: dict[str, Any] = {name: getattr(avse_ppl, name) for name in avse_ppl.__all__}
    names |= {"avse_ppl": avse_ppl, "wave": wave, "lips": read_lips("clip.mkv")}
    names["__name__"] = "__main__"
    for line, text in list_blocks(page, "python"):
        padded = "\n" * line + text  # errors name the line of the page
        exec(compile(padded, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_parse(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avse_ppl.cli.main import app

    monkeypatch.chdir(tmp_path)
    write_recordings(tmp_path)
    group: Any = typer.main.get_command(app)
    top = group.make_context("avse-ppl", [], resilient_parsing=True)
    for line, text in list_blocks(page, "sh", "bash", "console"):
        for words in list_commands(text):
            if words[0].startswith("-"):
                continue
            command = group.get_command(top, words[0])
            assert command is not None, f"{page}:{line}: no command {words[0]!r}"
            try:
                context = command.make_context(words[0], words[1:], parent=top)
                if hasattr(command, "resolve_command") and len(words) > 1:
                    name, inner, rest = command.resolve_command(context, words[1:])
                    inner.make_context(name, rest, parent=context)
            except Exception as error:
                message = getattr(error, "message", error)
                pytest.fail(f"{page}, below line {line}: avse-ppl {shlex.join(words)}: {message}")
    for text in INLINE.findall(page.read_text(encoding="utf-8")):
        words = text.split()[1:]
        if words[0].startswith("-"):
            continue
        command = group.get_command(top, words[0])
        assert command is not None, f"{page}: `{text}`: no such command"
        options = {name for parameter in command.params for name in parameter.opts}
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= options | {"--help"}, f"{page}: `{text}`"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    targets = [link or image for link, image in LINK.findall(text)]
    missing = [
        target
        for target in targets
        if not target.startswith(("http", "mailto")) and not (page.parent / target).exists()
    ]
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert not missing
