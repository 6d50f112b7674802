"""What holds for every test and every example in a docstring."""

from __future__ import annotations

import functools
import os
import random
import signal
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
import typer.testing

pytest.register_assert_rewrite("tests.helpers")

# Typer would build the parsers of all commands anew for each run of one.
typer.testing._get_command = functools.cache(typer.testing._get_command)

# A shell that starts the tests in the background has interrupts ignored, and so the tests of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_COMPILE_SOON = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture(autouse=True)
def _same_start() -> None:
    """Start each test from the same random numbers, and from no learned parameters."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    pyro.clear_param_store()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of development corpora beside the checkout, or skip the test."""
    folder = Path(__file__).resolve().parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared development corpora, which are not part of the project")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    """Let JAX compile soon rather than well, and keep the programs: tests run them only briefly."""
    os.environ.setdefault("XLA_FLAGS", _COMPILE_SOON)
    cache = getattr(config, "cache", None)
    if cache is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no CUDA, each once whatever its parameters."""
    if torch.cuda.is_available():
        return
    kept: dict[str, pytest.Item] = {}
    repeated = []
    for item in items:
        if item.get_closest_marker("gpu"):
            function = item.nodeid.partition("[")[0]
            if kept.setdefault(function, item) is item:
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))
            else:
                repeated.append(item)
    items[:] = [item for item in items if item not in repeated]
    config.hook.pytest_deselected(items=repeated)
