"""What a run needs of memory, and what is said where it is not there."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from avse_ppl import EM, HMC, NUTS, SVI, Exact, GaussianSpeech
from avse_ppl.inference.core import resources as memory
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.resources import (
    check_memory,
    estimate_memory,
    explain_out_of_memory,
    free_memory,
)
from avse_ppl.models.simulate import reference_scene
from tests.helpers import CPU, STFT

SCENE = reference_scene(False, stft=STFT)
WAVES = np.random.default_rng(0).normal(size=(2, 1600)).astype("float32")
DENSITY = LogDensity(SCENE, STFT.analyse(WAVES))
MIB = 2**20
ROUTINES = {
    "svi": SVI(steps=2, draws=400),
    "em": EM(iterations=2, draws=400),
    "exact": Exact(draws=400),
    "nuts": NUTS(draws=100, chains=4),
    "hmc": HMC(draws=100, chains=4),
}


@pytest.fixture
def free(monkeypatch):
    """Set how much memory there is, in MiB."""

    def only(mib):
        monkeypatch.setattr(
            memory, "free_memory", lambda device: None if mib is None else mib * MIB
        )

    return only


def test_the_need_is_in_proportion():
    one = estimate_memory(DENSITY, draws=100, waveforms=50)
    assert one.latents == 2.5 * 100 * 4 * sum(s.shape.numel() for s in DENSITY.sites)
    assert one.waveforms == 2.5 * 50 * 2 * 1600 * 4
    assert one.gradients == 25 * 4 * DENSITY.mixture.values.numel()
    assert one.duration_s == 0.1
    assert one.total == one.latents + one.waveforms + one.gradients
    assert estimate_memory(DENSITY, 200, 50).latents == 2 * one.latents
    assert estimate_memory(DENSITY, 100, 0).waveforms == 0
    assert estimate_memory(DENSITY, 100, 50, at_once=1).gradients == one.gradients / 2


def test_double_precision_needs_twice_as_much():
    double = LogDensity(SCENE, STFT.analyse(WAVES).to("cpu", torch.float64))
    assert estimate_memory(double, 100, 50).total == 2 * estimate_memory(DENSITY, 100, 50).total


def test_what_fits_passes(free):
    free(1000)
    check_memory(DENSITY, draws=100, waveforms=50)
    free(None)  # a system that does not say
    check_memory(DENSITY, draws=10**9, waveforms=10**9)


def test_what_does_not_fit_comes_with_what_would(free):
    free(40)
    with pytest.raises(MemoryError) as caught:
        check_memory(DENSITY, draws=1000, waveforms=10000)
    text = str(caught.value)
    found = re.fullmatch(
        r"this run needs about 0\.3 GiB of memory \(0\.0 GiB for 1000 draws of the latents, "
        r"0\.3 GiB for 10000 waveforms, 0\.0 GiB for gradients\), and 0\.0 GiB are free on cpu\. "
        r"What would fit: (\d+) draws in all instead of 1000, or waveforms=False, or chunks of at "
        r"most (\d\.\d) s instead of 0\.1 s",
        text,
    )
    assert found, text
    fit = int(found[1])
    check_memory(DENSITY, draws=fit, waveforms=10 * fit)
    with pytest.raises(MemoryError):
        check_memory(DENSITY, draws=fit + 10, waveforms=10 * (fit + 10))
    check_memory(DENSITY, draws=1000, waveforms=0)


def test_where_not_even_a_gradient_fits_only_chunks_help(free):
    free(0.5)
    with pytest.raises(MemoryError, match="What would fit: chunks of at most") as caught:
        check_memory(DENSITY, draws=10, waveforms=10)
    assert "draws in all" not in str(caught.value)
    assert "waveforms=False" not in str(caught.value)


@pytest.mark.parametrize("name", ROUTINES)
def test_every_routine_asks_before_it_starts(name, free):
    free(2)
    with pytest.raises(MemoryError, match="this run needs about"):
        ROUTINES[name](SCENE, WAVES, seed=0)


@pytest.mark.parametrize("name", ROUTINES)
def test_every_routine_explains_a_lack_of_memory(name, monkeypatch):
    def spent(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(GaussianSpeech, "__call__", spent)
    monkeypatch.setattr(
        "avse_ppl.inference.core.log_density.check_scene", lambda scene, mixture: None
    )
    with pytest.raises(
        MemoryError, match=r"the memory of cpu was spent on 2 recording\(s\) of 0.1"
    ):
        ROUTINES[name](SCENE, WAVES, seed=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"
        ),
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_explained(error):
    with pytest.raises(MemoryError) as caught, explain_out_of_memory(DENSITY.mixture):
        raise error
    assert str(caught.value) == (
        "the memory of cpu was spent on 2 recording(s) of 0.1 s; use fewer draws, waveforms=False, "
        "fewer recordings at once, or chunks shorter than 0.1 s"
    )
    assert caught.value.__cause__ is error


def test_a_real_allocation_that_fails_is_explained():
    with pytest.raises(MemoryError, match="was spent on"), explain_out_of_memory(DENSITY.mixture):
        torch.empty(2**60)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_left_alone(error):
    with pytest.raises(type(error)) as caught, explain_out_of_memory(DENSITY.mixture):
        raise error
    assert caught.value is error


def test_what_was_asked_before_is_not_explained_again(free):
    free(1)
    with pytest.raises(MemoryError, match="this run needs"), explain_out_of_memory(DENSITY.mixture):
        check_memory(DENSITY, draws=1000, waveforms=1000)


# --- what is free --------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Write what Linux says in a folder of the test."""

    def write(meminfo=None, limit=None, used=None):
        for name, text in (("_MEMINFO", meminfo), ("_LIMIT", limit), ("_USED", used)):
            path = tmp_path / name
            monkeypatch.setattr(memory, name, path)
            if text is not None:
                path.write_text(text)

    return write


def test_free_memory_is_what_linux_says(system):
    system("MemTotal:  2000 kB\nMemAvailable:  1000 kB\nSwapFree: 5 kB\n")
    assert free_memory(CPU) == 1000 * 1024


def test_a_container_may_have_less(system):
    system("MemAvailable: 1000 kB\n", limit="500000\n", used="200000\n")
    assert free_memory(CPU) == 300000
    system("MemAvailable: 1000 kB\n", limit="max\n", used="200000\n")
    assert free_memory(CPU) == 1000 * 1024


@pytest.mark.parametrize("meminfo", [None, "", "MemAvailable:\n", "MemTotal: 3 kB\n"])
def test_a_system_that_does_not_say(system, meminfo):
    system(meminfo)
    assert free_memory(CPU) is None


@pytest.mark.gpu
def test_cuda_says_itself():
    device = torch.device("cuda")
    free = free_memory(device)
    held = torch.empty(2**28, dtype=torch.uint8, device=device)
    assert free - free_memory(device) == pytest.approx(2**28, rel=0.1)
    del held
    assert free_memory(device) == pytest.approx(free, rel=0.05)
