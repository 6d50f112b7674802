"""``avse-ppl doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption

HELP = """
Say what this machine offers: versions, device, threads, optional parts and how to get them.

Worth a look before anything else, and worth pasting into a report of a problem.

Exit code: 0 if the library can work here, 2 if not.
"""


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine offers; see ``HELP``."""
    with console.guarded():
        from avse_ppl.cli.doctor import examine

        with console.stdout_kept_clean():
            found = examine()
        if as_json:
            console.print_json(found)
        else:
            _print(found)
        for problem in found["problems"]:
            console.say("error:", problem, "bold red")
        if found["problems"]:
            raise typer.Exit(console.BAD_INPUT)


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, text in _rows(found):
        table.add_row(name, text)
    console.OUT.print(table, highlight=False, markup=False)


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "avse-ppl", found["avse_ppl"]
    yield "Python", f"{found['python']} in {found['environment']}"
    yield "platform", found["platform"]
    yield "device", _device(found["device"])
    threads = found["threads"]
    limit = threads["OMP_NUM_THREADS"]
    yield (
        "threads",
        f"{threads['torch']} of {threads['cores']} cores"
        + (f" (OMP_NUM_THREADS={limit})" if limit else ""),
    )
    yield "weights", ", ".join(found["weights"]) or "none shipped"
    for name, at in found["required"].items():
        yield name, at["version"] or "missing"
    for name, extra in found["extras"].items():
        yield f"[{name}]", _extra(extra)


def _device(device: dict[str, Any]) -> str:
    if device["cuda"]:
        return f"CUDA: {device['count']} x {device['name']}, {device['memory_gb']} GB"
    built = f"; torch is built for CUDA {device['built_for']}" if device["built_for"] else ""
    return f"CPU (no CUDA device found{built})"


def _extra(extra: dict[str, Any]) -> str:
    if extra["there"]:
        versions = ", ".join(f"{name} {at['version']}" for name, at in extra["packages"].items())
        return f"{versions} (for {extra['for']})"
    broken = [
        f"{name} {at['error']}"
        for name, at in extra["packages"].items()
        if at["version"] and at["error"]
    ]
    return "; ".join([f"not there: {extra['install']} for {extra['for']}", *broken])
