"""Pictures on disk: whole, or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def write_figure(figure: Any, path: Path, dpi: int = 120) -> Path:
    """Draw a figure beside its place, then rename it: a failure leaves nothing behind."""
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        figure.savefig(beside, dpi=dpi, format=path.suffix.lower().removeprefix(".") or None)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
