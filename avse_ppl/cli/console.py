"""Console: results go to stdout; warnings, errors and progress to stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from avse_ppl.utils.run_time import LongRunWarning

if TYPE_CHECKING:
    from rich.progress import Progress

OUT, ERR = Console(), Console(stderr=True)
BAD_INPUT, INTERRUPTED = 2, 130
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


SeedOption = Annotated[
    int, typer.Option(min=0, help="Of everything random: same seed, same result.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Where to compute; [bold]auto[/] takes CUDA where there is one.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and nothing else, on stdout.")
]


@contextlib.contextmanager
def guard_errors() -> Iterator[list[str]]:
    """Show warnings and expected errors as one line each; yields the warnings shown so far.

    Raises
    ------
    typer.Exit
        With code 2 for an error that the user can act on. Others are left as they are, and so are
        all if ``AVSE_PPL_DEBUG`` is set.
    """
    shown: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        text = str(message)
        if category in (UserWarning, LongRunWarning) and text not in shown:
            shown.append(text)
            print_warning(text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        try:
            yield shown
        except BrokenPipeError:
            raise
        except Exception as error:
            if is_debugging() or not is_expected(error):
                raise
            exit_with_error(error)


def is_debugging() -> bool:
    """Whether errors should come with their traceback."""
    return bool(os.environ.get("AVSE_PPL_DEBUG"))


def is_expected(error: BaseException) -> bool:
    """Whether an error is about what the user gave, or the machine, and not a defect of ours."""
    return isinstance(error, _EXPECTED) or type(error).__name__ == "OutOfMemoryError"


def exit_with_error(error: BaseException) -> NoReturn:
    """Print one error line and leave with code 2."""
    print_message("error:", describe_error(error), "bold red")
    raise typer.Exit(BAD_INPUT)


def print_warning(text: str) -> None:
    """Print one warning line."""
    print_message("warning:", text, "yellow")


def print_message(prefix: str, text: str, style: str = "") -> None:
    """Print one line on stderr, however long."""
    ERR.print(f"[{style}]{prefix}[/]" if style else prefix, end=" ", highlight=False)
    ERR.print(join_whitespace(text), markup=False, highlight=False, soft_wrap=True)


def describe_error(error: BaseException) -> str:
    """Text of an error, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return join_whitespace(f"{error.filename or 'file'}: {error.strerror}")
    text = join_whitespace(str(error)) or "no reason given"
    return text if isinstance(error, (ValueError, TypeError, OSError, ImportError)) else (
        f"{type(error).__name__}: {text}"
    )  # fmt: skip


def group_remarks(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Lines for remarks about files; one line for the same remark about many.

    Examples
    --------
    >>> group_remarks([("a.wav", "clipped"), ("b.wav", "clipped"), ("c.wav", "silent")])
    ['a.wav and 1 more: clipped', 'c.wav: silent']
    """
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    return [
        f"{first} and {len(rest)} more: {text}"
        if rest
        else (text if f"'{first}'" in text else f"{first}: {text}")
        for text, (first, *rest) in names.items()
    ]


def print_line(text: str) -> None:
    """Print one line on stdout, however long."""
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print as JSON, with null for what is no finite number."""
    sys.stdout.write(json.dumps(make_serialisable(value), indent=2, allow_nan=False) + "\n")


def print_json_line(value: object) -> None:
    """Print as one line of JSON on stderr, at once."""
    sys.stderr.write(json.dumps(make_serialisable(value), allow_nan=False) + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def redirect_stdout() -> Iterator[None]:
    """Send what anything prints meanwhile to stderr: stdout is for the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def make_progress_bar(shown: bool = True) -> Progress:
    """Progress bar on stderr with the time left, on a terminal only; goes when it is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=ERR, transient=True,
        disable=not (shown and ERR.is_terminal),
    )  # fmt: skip


def add_steps(progress: Progress, what: str = "inference") -> Callable[[int, int], None]:
    """Add a line for the steps of an inference, or of other work; returns what moves it on."""
    task = progress.add_task(what, total=None)
    last = 0

    def show_step(step: int, steps: int) -> None:
        nonlocal last
        if step < last:  # the next batch
            progress.reset(task)
        last = step
        progress.update(task, completed=step, total=steps)

    return show_step


def join_whitespace(text: str) -> str:
    """Text in one line."""
    return " ".join(text.split())


def make_serialisable(value: Any) -> Any:
    """Value of types that JSON has, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(key): make_serialisable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_serialisable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
