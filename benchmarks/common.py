"""What the benchmarks share: where the development data lie, timing, tables."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avse_ppl.evaluation.metrics import Scores, evaluate

SHARED = Path(__file__).resolve().parents[2] / "shared"
PEERS = SHARED / "peers"


def imported(name: str, folder: Path) -> Path:
    """Folder with published weights, converted now."""
    from avse_ppl.models.weights.import_published import import_weights

    file = next((PEERS / name).glob("*.pt"))
    return import_weights(file, PEERS / name / "config.ini", folder / name)


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def mean_scores(scores: Sequence[Scores]) -> tuple[float, float, float]:
    """Mean SI-SDR, PESQ and ESTOI over those clips that have one."""
    rows = [(s.si_sdr_db, s.pesq_wb, s.estoi) for s in scores]
    return tuple(np.nanmean(np.array(rows, dtype=float), axis=0).tolist())


def score(clean: np.ndarray, estimate: np.ndarray) -> Scores:
    """Scores of one clip at 16 kHz."""
    n = min(len(clean), len(estimate))
    return evaluate(clean[:n], estimate[:n], 16000)


def row(*cells: object) -> str:
    """One line of a Markdown table."""
    texts = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
    return "| " + " | ".join(texts) + " |"


def quality(scores: tuple[float, float, float]) -> str:
    """``SI-SDR / PESQ / ESTOI``."""
    return f"{scores[0]:.2f} / {scores[1]:.3f} / {scores[2]:.3f}"


def machine() -> str:
    """The machine that the figures were taken on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    threads = torch.get_num_threads()
    return (
        f"{os.cpu_count()} cores ({model}), {threads} torch thread{'s' * (threads > 1)}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
