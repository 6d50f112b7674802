"""What this machine offers: versions, devices, and which optional parts are there."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

REQUIRED: Mapping[str, str] = MappingProxyType(
    {
        "torch": "torch",
        "torchaudio": "torchaudio",
        "pyro-ppl": "pyro",
        "numpy": "numpy",
        "scipy": "scipy",
        "arviz": "arviz",
        "h5netcdf": "h5netcdf",
        "librosa": "librosa",
        "soundfile": "soundfile",
        "av": "av",
        "safetensors": "safetensors",
        "torchmetrics": "torchmetrics",
        "pystoi": "pystoi",
        "matplotlib": "matplotlib",
    }
)


@dataclass(frozen=True)
class Extra:
    """An optional part: what it is for, and its packages by distribution and import name."""

    purpose: str
    packages: Mapping[str, str]
    hint: str = ""


EXTRAS: Mapping[str, Extra] = MappingProxyType(
    {
        "train": Extra("avse-ppl train", {"pytorch-lightning": "pytorch_lightning"}),
        "pesq": Extra("the PESQ score", {"pesq": "pesq"}, "needs a C compiler and python3-dev"),
        "video": Extra(
            "face tracking", {"insightface": "insightface", "onnxruntime": "onnxruntime"}
        ),
        "jax": Extra("inference on JAX", {"jax": "jax", "numpyro": "numpyro"}),
    }
)


def examine() -> dict[str, Any]:
    """Look at versions, devices, threads, optional parts and shipped weights.

    Packages are imported, not just looked up: one that is installed but broken is found out.

    Returns
    -------
    dict
        ``avse_ppl``, ``python``, ``platform``, ``required``, ``extras``, ``device``, ``threads``,
        ``weights``, and ``problems``: what keeps the library from working, in words.

    Examples
    --------
    >>> examine()["required"]["numpy"]["error"] is None
    True
    """
    from avse_ppl import __version__

    required = {name: _probe(name, module) for name, module in REQUIRED.items()}
    extras = {name: _extra(name, extra) for name, extra in EXTRAS.items()}
    weights = _weights()
    problems = [f"{name}: {at['error']}" for name, at in required.items() if at["error"]]
    problems += [f"weights {name}: {error}" for name, error in weights.items() if error]
    return {
        "avse_ppl": __version__,
        "python": platform.python_version(),
        "environment": sys.prefix,
        "platform": platform.platform(),
        "required": required,
        "extras": extras,
        "device": _device(),
        "threads": _threads(),
        "weights": weights,
        "problems": problems,
    }


def _probe(distribution: str, module: str) -> dict[str, str | None]:
    """Version of a package, and why it cannot be imported."""
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return {"version": None, "error": f"not installed; pip install {distribution}"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # whatever a broken package comes up with
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return {"version": version, "error": f"installed but broken: {text}"}
    return {"version": version, "error": None}


def _extra(name: str, extra: Extra) -> dict[str, Any]:
    packages = {package: _probe(package, module) for package, module in extra.packages.items()}
    there = all(at["error"] is None for at in packages.values())
    command = f"pip install 'avse-ppl[{name}]'" + (f" ({extra.hint})" if extra.hint else "")
    return {
        "for": extra.purpose,
        "there": there,
        "packages": packages,
        "install": None if there else command,
    }


def _device() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"cuda": torch.cuda.is_available(), "built_for": torch.version.cuda}
    if found["cuda"]:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "count": torch.cuda.device_count(),
            "memory_gb": round(properties.total_memory / 1e9, 1),
        }
    return found


def _threads() -> dict[str, Any]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "torch": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _weights() -> dict[str, str | None]:
    """Shipped weights by name, and why they cannot be read."""
    from avse_ppl.models.speech.load import load_speech, pretrained_names

    found: dict[str, str | None] = {}
    for name in pretrained_names():
        try:
            load_speech(name)
            found[name] = None
        except (ValueError, OSError) as error:
            found[name] = str(error)
    return found
