"""Resources of a run: CPU threads, and an estimate of its memory before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch

from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.signal.stft import Spectrogram

_BINS_A_THREAD = 400_000  # 12 s at the default front end; below that a second thread only waits
_GIB = 2**30
# Numbers held at once for each bin of the mixture while a gradient is taken: measured 11 (Gaussian
# speech) to 22 (recurrent network) on batches of 4 to 12 recordings of 15 s with NMF noise.
_GRADIENT = 25
# Draws are listed, stacked and converted: two copies at a time, and half of one for the conversion.
_COPIES = 2.5
_SHARE = 0.9  # of what is free: the rest of the process needs some as well
_SIGNS = ("out of memory", "can't allocate", "cannot allocate", "unable to allocate", "bad_alloc")
_MEMINFO, _LIMIT, _USED = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
)


@contextmanager
def limit_threads(mixture: Spectrogram) -> Iterator[None]:
    """Use no more CPU threads than a mixture can feed.

    One recording keeps one core busy. More threads would spin while they wait for each other, which
    costs CPU time, and wall time as well where others want the cores.
    """
    before = torch.get_num_threads()
    wanted = max(1, min(before, mixture.values.numel() // _BINS_A_THREAD))
    if wanted == before or mixture.values.device.type != "cpu":
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class MemoryEstimate(NamedTuple):
    """Bytes that a run takes, and the seconds of audio that it is about."""

    latents: float
    waveforms: float
    gradients: float
    duration_s: float

    @property
    def total(self) -> float:
        """All together."""
        return self.latents + self.waveforms + self.gradients


def estimate_memory(
    density: LogDensity, draws: int, waveforms: int, at_once: int | None = None
) -> MemoryEstimate:
    """Estimate the bytes of a run.

    Parameters
    ----------
    density
        Whose latents are drawn.
    draws
        Draws of the latents, all chains together.
    waveforms
        Waveforms, all chains together.
    at_once
        Recordings whose gradients are taken together, by default all.
    """
    mixture = density.mixture
    size = 8 if mixture.scale.dtype == torch.float64 else 4
    latents = sum(site.shape.numel() for site in density.sites)
    samples = mixture.recordings * max(mixture.n_samples)
    bins = mixture.values[: at_once or mixture.recordings].numel()
    return MemoryEstimate(
        latents=_COPIES * draws * latents * size,
        waveforms=_COPIES * waveforms * samples * size,
        gradients=_GRADIENT * bins * size,
        duration_s=max(mixture.n_samples) / mixture.stft.sample_rate_hz,
    )


def check_memory(
    density: LogDensity, *, draws: int, waveforms: int, at_once: int | None = None
) -> None:
    """Raise unless a run is likely to fit into the memory that is free now.

    Parameters
    ----------
    density, draws, waveforms, at_once
        See `estimate_memory`.

    Raises
    ------
    MemoryError
        If the estimate exceeds nine tenths of what is free, with what would fit.
    """
    free = free_memory(density.mixture.scale.device)
    estimate = estimate_memory(density, draws, waveforms, at_once)
    if free is None or estimate.total <= _SHARE * free:
        return
    # Settings that would fit.
    available, device = _SHARE * free, density.mixture.scale.device.type
    left = available - estimate.gradients
    options = []
    fit = int(draws * left / (estimate.latents + estimate.waveforms)) if left > 0 else 0
    if fit >= 1:
        options.append(f"{fit} draws in all instead of {draws}")
        if estimate.latents <= left:
            options.append("waveforms=False")
    seconds = estimate.duration_s * available / estimate.total
    options.append(f"chunks of at most {seconds:.1f} s instead of {estimate.duration_s:.1f} s")
    raise MemoryError(
        f"this run needs about {format_gib(estimate.total)} of memory "
        f"({format_gib(estimate.latents)} for {draws} draws of the latents, "
        f"{format_gib(estimate.waveforms)} for {waveforms} waveforms, "
        f"{format_gib(estimate.gradients)} for gradients), and {format_gib(free)} are free on "
        f"{device}. What would fit: {', or '.join(options)}"
    )


@contextmanager
def explain_out_of_memory(mixture: Spectrogram) -> Iterator[None]:
    """Turn what torch says of a lack of memory into a `MemoryError` that says what to do.

    Raises
    ------
    MemoryError
        In place of torch's ``OutOfMemoryError``, or of its ``RuntimeError`` where the CPU's memory
        is spent.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        without_text = isinstance(error, MemoryError) and not text  # Python's own
        if not without_text and not any(sign in text for sign in _SIGNS):
            raise
        seconds = max(mixture.n_samples) / mixture.stft.sample_rate_hz
        raise MemoryError(
            f"the memory of {mixture.scale.device.type} was spent on {mixture.recordings} "
            f"recording(s) of {seconds:.1f} s; use fewer draws, waveforms=False, fewer recordings "
            f"at once, or chunks shorter than {seconds / 2:.1f} s"
        ) from error


def free_memory(device: torch.device) -> float | None:
    """Bytes that a process may still take, None where the system does not say.

    On CUDA with what torch keeps reserved and unused; on Linux within the limit of a container.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    options = []
    with suppress(OSError, ValueError, IndexError):  # what Linux can give without swapping
        lines = _MEMINFO.read_text().splitlines()
        options += [1024.0 * int(line.split()[1]) for line in lines if "MemAvailable" in line][:1]
    with suppress(OSError, ValueError):  # what is left under a container's limit, unless "max"
        options.append(float(int(_LIMIT.read_text()) - int(_USED.read_text())))
    return min(options, default=None)


def format_gib(size: float) -> str:
    """Number of bytes in GiB.

    Examples
    --------
    >>> format_gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{size / _GIB:.1f} GiB"
