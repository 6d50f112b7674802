"""``avse-ppl doctor``: check the installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption

HELP = """
Check the installation: versions, device, threads, optional parts and how to get them.

Worth a look before anything else, and worth pasting into a report of a problem.

Exit code: 0 if the library can work here, 2 if not.
"""


def doctor(as_json: JsonOption = False) -> None:
    """Check the installation; see ``HELP``."""
    with console.guard_errors():
        from rich.table import Table

        from avse_ppl.cli.doctor import examine_installation

        with console.redirect_stdout():
            found = examine_installation()
        if as_json:
            console.print_json(found)
        else:
            table = Table(box=None, show_header=False, pad_edge=False)
            table.add_column(style="cyan", no_wrap=True)
            table.add_column()
            for name, text in list_rows(found):
                table.add_row(name, text)
            console.OUT.print(table, highlight=False, markup=False)
        for problem in found["problems"]:
            console.print_message("error:", problem, "bold red")
        if found["problems"]:
            raise typer.Exit(console.BAD_INPUT)


def list_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the table: a name and what was found."""
    yield "avse-ppl", found["avse_ppl"]
    yield "Python", f"{found['python']} in {found['environment']}"
    yield "platform", found["platform"]

    # Device and threads.
    device, threads = found["device"], found["threads"]
    if device["cuda"]:
        yield "device", f"CUDA: {device['count']} x {device['name']}, {device['memory_gb']} GB"
    else:
        built = f"; torch is built for CUDA {device['built_for']}" if device["built_for"] else ""
        yield "device", f"CPU (no CUDA device found{built})"
    limit = threads["OMP_NUM_THREADS"]
    more = f" (OMP_NUM_THREADS={limit})" if limit else ""
    yield "threads", f"{threads['torch']} of {threads['cores']} cores{more}"
    yield "weights", ", ".join(found["weights"]) or "none shipped"

    # Packages.
    for name, package in found["required"].items():
        yield name, package["version"] or "missing"
    for name, extra in found["extras"].items():
        packages = extra["packages"].items()
        if extra["there"]:
            versions = ", ".join(f"{package} {at['version']}" for package, at in packages)
            yield f"[{name}]", f"{versions} (for {extra['for']})"
        else:
            broken = [
                f"{package} {at['error']}"
                for package, at in packages if at["version"] and at["error"]
            ]  # fmt: skip
            missing = f"not there: {extra['install']} for {extra['for']}"
            yield f"[{name}]", "; ".join([missing, *broken])
