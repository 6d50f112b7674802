"""``avse-ppl models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption

HELP = """
List the speech priors, noise models and inference routines, or show the card of one prior.

What is listed under a heading goes to [bold]avse-ppl enhance[/] with the option of that heading.
The card of a prior says what it was trained on, under which licence, and how well it does.

[bold]Examples[/]

\b
  avse-ppl models
  avse-ppl models tcvae
  avse-ppl models my_weights/
"""

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME|DIR]", help="One of those listed, or a folder of weights."),
]
TITLES = {"speech": "Speech priors", "noise": "Noise models", "inference": "Inference routines"}


def models(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List what there is; see ``HELP``."""
    with console.guarded():
        if name is None:
            listed = _listed()
            if as_json:
                console.print_json(listed)
            else:
                _print_listed(listed)
            return
        entry = _entry(name)
        if as_json:
            console.print_json(entry)
        else:
            _print_entry(entry)


def _listed() -> dict[str, dict[str, str]]:
    from avse_ppl.pipeline.catalog import INFERENCE_METHODS, NOISE_MODELS, speech_names

    return {
        "speech": speech_names(),
        "noise": dict(NOISE_MODELS),
        "inference": dict(INFERENCE_METHODS),
    }


def _entry(name: str) -> dict[str, Any]:
    """Look one name up: its line, or of weights the config and the card."""
    from avse_ppl.models.validation import unknown_name
    from avse_ppl.models.weights.io import PRETRAINED

    for folder in (PRETRAINED / name, Path(name)):
        if (folder / "config.json").is_file():
            return _weights(name, folder)
    for kind, names in (listed := _listed()).items():
        if name in names:
            return {"name": name, "option": f"--{kind}", "description": names[name]}
    if Path(name).is_dir():
        raise ValueError(f"'{name}' holds no config.json; expected a folder of weights")
    raise unknown_name("model", name, [key for names in listed.values() for key in names])


def _weights(name: str, folder: Path) -> dict[str, Any]:
    from avse_ppl.models.weights.io import load_network

    _, config = load_network(folder)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "no card"
    option = f"--{config.get('use', 'speech')}"
    return {"name": name, "option": option, "config": config, "card": text}


def _print_listed(listed: dict[str, dict[str, str]]) -> None:
    from rich.table import Table

    for kind, names in listed.items():
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, line in names.items():
            table.add_row(f"  {name}", line)
        console.OUT.print(f"[bold]{TITLES[kind]}[/] (--{kind})", highlight=False)
        console.OUT.print(table)
        console.OUT.print()
    console.OUT.print("Your own noise model: --noise module:function.", highlight=False)
    console.OUT.print("A folder of weights: --speech DIR.", highlight=False)


def _print_entry(entry: dict[str, Any]) -> None:
    if "card" not in entry:
        console.print_line(f"{entry['option']} {entry['name']}: {entry['description']}")
        return
    from rich.markdown import Markdown

    console.OUT.print(Markdown(entry["card"]))
    console.print_line(f"config: {json.dumps(entry['config'])}")
