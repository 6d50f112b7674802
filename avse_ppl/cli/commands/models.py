"""``avse-ppl models``: list models and inference methods."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption

HELP = """
List speech priors, noise models, inference methods and models of visual reliability, or show the
card of one prior.

What is listed under a heading goes to [bold]avse-ppl enhance[/] with the option of that heading.
Inference methods come with the settings in which they differ from the defaults of their class. The
card of a prior says what it was trained on, under which licence, and how well it does.

[bold]Examples[/]

\b
  avse-ppl models
  avse-ppl models svi
  avse-ppl models tcvae
  avse-ppl models my_weights/
"""

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="[NAME|DIR]", help="One of those listed, or a folder of weights."),
]
TITLES = {
    "speech": "Speech priors",
    "noise": "Noise models",
    "inference": "Inference methods",
    "reliability": "Models of visual reliability",
}


def models(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """List models and inference methods; see ``HELP``."""
    with console.guard_errors():
        found: dict[str, Any] = list_models() if name is None else find_model(name)
        if as_json:
            console.print_json(found)
        elif name is None:
            print_models(found)
        elif "card" in found:
            from rich.markdown import Markdown

            console.OUT.print(Markdown(str(found["card"])))
            console.print_line(f"config: {json.dumps(found['config'])}")
        else:
            console.print_line(f"{found['option']} {name}: {found['description']}")
            if found.get("settings"):
                console.print_line(f"{found['class']}({format_settings(found['settings'])})")


def list_models() -> dict[str, dict[str, str]]:
    """Every name with a line on it, by option."""
    from avse_ppl.pipeline import catalog

    return {
        "speech": catalog.speech_names(),
        "noise": dict(catalog.NOISE_MODELS),
        "inference": dict(catalog.INFERENCE_METHODS),
        "reliability": dict(catalog.RELIABILITY_MODELS),
    }


def find_model(name: str) -> dict[str, Any]:
    """Description of a name; of weights the config and the card.

    Raises
    ------
    ValueError
        If the name is unknown, or the folder holds no weights.
    """
    from avse_ppl.inference import presets
    from avse_ppl.models.validation import unknown_name
    from avse_ppl.models.weights.io import PRETRAINED, load_network

    for folder in (PRETRAINED / name, Path(name)):
        if (folder / "config.json").is_file():
            _, config = load_network(folder)
            card = folder / "README.md"
            text = card.read_text(encoding="utf-8") if card.is_file() else "no card"
            text = re.sub(r"<!-- .*? -->", "", text)  # the markers of measured figures
            option = f"--{config.get('use', 'speech')}"
            return {"name": name, "option": option, "config": config, "card": text}
    listed = list_models()
    for kind, names in listed.items():
        if name in names:
            entry = {"name": name, "option": f"--{kind}", "description": names[name]}
            if kind == "inference":
                preset = presets[name]
                entry |= {"class": preset.method.__name__, "settings": dict(preset.settings)}
            return entry
    if Path(name).is_dir():
        raise ValueError(f"'{name}' holds no config.json; expected a folder of weights")
    raise unknown_name("model", name, [key for names in listed.values() for key in names])


def print_models(listed: dict[str, dict[str, str]]) -> None:
    """Print a table for each option."""
    from rich.table import Table

    from avse_ppl.inference import presets

    for kind, names in listed.items():
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, line in names.items():
            preset = presets[name] if kind == "inference" else None
            if preset is not None and preset.settings:
                line += f"; {preset.method.__name__}({format_settings(preset.settings)})"
            table.add_row(f"  {name}", line)
        console.OUT.print(f"[bold]{TITLES[kind]}[/] (--{kind})", highlight=False)
        console.OUT.print(table, highlight=False)
        console.OUT.print()
    console.OUT.print("Your own noise model: --noise module:function.", highlight=False)
    console.OUT.print("A folder of weights: --speech DIR.", highlight=False)


def format_settings(settings: Mapping[str, Any]) -> str:
    """Settings as they are written in Python."""
    return ", ".join(f"{field}={value!r}" for field, value in settings.items())
