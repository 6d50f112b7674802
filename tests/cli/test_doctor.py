"""What the doctor finds, in machines made up for it."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from avse_ppl.cli import doctor
from avse_ppl.cli.commands.doctor import list_rows


def test_a_sound_machine_has_no_problems():
    found = doctor.examine_installation()
    assert found["problems"] == []
    assert set(found["required"]) == set(doctor.REQUIRED)
    assert all(at["version"] and not at["error"] for at in found["required"].values())


def test_it_looks_at_what_the_project_declares():
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    declared = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert set(doctor.REQUIRED) <= declared
    extras = project["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {
        "dev",
        "docs",
        "notebooks",
    }  # for work on the library
    for name, extra in doctor.EXTRAS.items():
        assert set(extra.packages) == {re.match(r"[\w-]+", line)[0] for line in extras[name]}


def test_a_package_that_is_not_installed():
    found = doctor.probe_package("no-such-package-anywhere", "no_such_package_anywhere")
    assert found["version"] is None
    assert found["error"] == "not installed; pip install no-such-package-anywhere"


@pytest.mark.parametrize(
    "error", [ImportError("lib.so\nis missing"), RuntimeError("lib.so is missing")]
)
def test_a_package_that_is_broken(monkeypatch, error):
    def broken(name):
        raise error

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    found = doctor.probe_package("numpy", "numpy")
    assert found["version"] is not None
    assert found["error"] == f"installed but broken: {type(error).__name__}: lib.so is missing"


def test_an_optional_part_that_is_missing_is_no_problem(monkeypatch):
    extra = doctor.Extra("a purpose", {"numpy": "numpy", "no-such": "no_such"}, "a hint")
    monkeypatch.setattr(doctor, "EXTRAS", {"part": extra})
    found = doctor.examine_installation()
    assert found["problems"] == []
    assert not found["extras"]["part"]["there"]
    assert found["extras"]["part"]["install"] == "pip install 'avse-ppl[part]' (a hint)"
    row = dict(list_rows(found))["[part]"]
    assert row == "not there: pip install 'avse-ppl[part]' (a hint) for a purpose"


def test_an_optional_part_that_is_broken_says_so(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"part": doctor.Extra("it", {"numpy": "numpy"})})
    monkeypatch.setattr(doctor, "REQUIRED", {})
    monkeypatch.setitem(sys.modules, "numpy", None)
    row = dict(list_rows(doctor.examine_installation()))["[part]"]
    assert "; numpy installed but broken: ModuleNotFoundError" in row


def test_weights_that_cannot_be_read_are_a_problem(monkeypatch):
    from avse_ppl.models.speech import load as pretrained_speech

    def corrupt(name):
        raise ValueError("cut short")

    monkeypatch.setattr(pretrained_speech, "pretrained_names", lambda: ["mine"])
    monkeypatch.setattr(pretrained_speech, "load_speech", corrupt)
    found = doctor.examine_installation()
    assert found["weights"] == {"mine": "cut short"}
    assert found["problems"] == ["weights mine: cut short"]


def test_with_and_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dict(list_rows(doctor.examine_installation()))["device"].startswith(
        "CPU (no CUDA device found"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    properties = SimpleNamespace(name="Card", total_memory=24e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert dict(list_rows(doctor.examine_installation()))["device"] == "CUDA: 2 x Card, 24.0 GB"


def test_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = doctor.examine_installation()["threads"]
    assert threads["torch"] == torch.get_num_threads()
    assert threads["cores"] >= 1 and threads["OMP_NUM_THREADS"] is None


@pytest.mark.gpu
def test_a_real_device():
    device = doctor.examine_installation()["device"]
    assert device["cuda"] and device["memory_gb"] > 1
