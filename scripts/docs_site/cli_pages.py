"""Reference of the command line, from the commands themselves."""

from __future__ import annotations

import re
from typing import Any


def format_text(text: str) -> str:
    """Format a help text as Markdown: rich markup becomes bold, a kept paragraph a code block."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.split("\n")[1:]
            indent = min(len(line) - len(line.lstrip()) for line in lines)
            rows = [line[indent:] for line in lines]
            paragraphs.append("\n".join(["```sh", *rows, "```"]))
        else:
            paragraphs.append(format_markup(paragraph))
    return "\n\n".join(paragraphs)


def format_markup(text: str) -> str:
    """Format one paragraph: bold of rich as bold of Markdown, and nothing else is markup."""
    parts = re.split(r"\[bold\](.*?)\[/(?:bold)?\]", text)
    parts = [re.sub(r"([\\`*_<>\[\]])", r"\\\1", part) for part in parts]
    parts = [re.sub(r"(?<![\w\\-])(--[a-z][\w-]*)", r"`\1`", part) for part in parts]
    parts[1::2] = [f"**{part}**" for part in parts[1::2]]
    return "".join(parts)


def list_parameters(command: Any, context: Any) -> str:
    """List arguments and options with their help, as a definition list."""
    rows: dict[str, list[str]] = {"argument": [], "option": []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and "--help" not in record[0]:
            names = record[0].replace("`", "")
            rows[parameter.param_type_name].append(f"`{names}`\n:   {format_markup(record[1])}\n")
    titles = {"argument": "Arguments", "option": "Options"}
    return "\n".join(
        f"**{titles[kind]}**\n\n" + "\n".join(entries) for kind, entries in rows.items() if entries
    )


def render_command(command: Any, context: Any, heading: str = "#") -> str:
    """Render one command, and the commands below it."""
    usage = command.get_usage(context).removeprefix("Usage: ")
    sections = [
        f"{heading} {context.command_path}",
        format_text(command.help or ""),
        f"```text\n{' '.join(usage.split())}\n```",
        list_parameters(command, context),
    ]
    for name in getattr(command, "commands", {}):
        below = command.get_command(context, name)
        inner = below.make_context(name, [], parent=context, resilient_parsing=True)
        sections.append(render_command(below, inner, heading + "#"))
    return "\n\n".join(sections) + "\n"


def make_pages() -> dict[str, str]:
    """Make a page for each command, and one that lists them."""
    import typer

    from avse_ppl.cli.main import app

    group: Any = typer.main.get_command(app)
    top = group.make_context("avse-ppl", [], resilient_parsing=True)
    pages = {}
    rows = []
    for name in group.list_commands(top):
        command = group.get_command(top, name)
        context = command.make_context(name, [], parent=top, resilient_parsing=True)
        pages[f"cli/{name}.md"] = render_command(command, context)
        what = format_markup(command.get_short_help_str(200))
        rows.append(f"| [`avse-ppl {name}`]({name}.md) | {what} |")
    index = ["# Command line", format_text(group.help), "| command | what it does |\n|---|---|"]
    return {"cli/index.md": "\n\n".join(index) + "\n" + "\n".join(rows) + "\n", **pages}
