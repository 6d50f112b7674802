"""Small settings, made-up inputs, small networks and the command line, for several test files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.poutine as poutine
import pytest
import soundfile
import torch

from avse_ppl import ComplexNormal, Frames, Posterior, Stft
from avse_ppl.models.handlers import reuse_plates
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "examples" / "data"
RATE_HZ = 16000
CPU = torch.device("cpu")
STFT = Stft(n_fft=64, hop=16)  # 33 bins: everything that does not need a shipped prior

# What Lightning warns of in runs as short as those of tests.
TRAINING_WARNINGS = (
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated",
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:The number of training batches .* is smaller than the",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:GPU available but not used",
)


def ignore_training_warnings(test: Any) -> Any:
    """Let a test or a class of tests pass in spite of Lightning's warnings on short runs."""
    for text in TRAINING_WARNINGS:
        test = pytest.mark.filterwarnings(text)(test)
    return test


# --- recordings and videos -----------------------------------------------------------------------


def waves(count: int = 2, n_samples: int = 320, seed: int = 0) -> np.ndarray:
    """White Gaussian recordings ``(count, n_samples)``, single precision."""
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def write_recording(
    path: Path | str, seconds: float = 0.2, seed: int = 0, channels: int = 1, rate_hz: int = RATE_HZ
) -> Path:
    """Write a recording of white noise, and its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate_hz), channels)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(shape)
    soundfile.write(path, samples, rate_hz)
    return path


def visual_features(
    gate: Any = 1.0, time: int = 12, recordings: int = 2, size: int = 4, seed: int = 0
) -> torch.Tensor:
    """Features as a prior gets them: a row of the gate, then random features times the gate."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(recordings, size, time, generator=generator)
    row = torch.as_tensor(gate, dtype=torch.float32).expand(recordings, 1, time).clone()
    return torch.cat((row, row * features), 1)


# --- models --------------------------------------------------------------------------------------


def known_noise(frames: Frames) -> ComplexNormal:
    """Noise without a latent: white, of power 0.3."""
    return ComplexNormal(0.0, 0.3)


def make_network(kind: str, freq: int = STFT.freq, latent: int = 3) -> Any:
    """Make a network of a few units with random weights: a "vae", an "rvae" or a "tcvae"."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vae":
            network = VaeNetwork(freq, latent, hidden=(8,))
        elif kind == "rvae":
            network = RvaeNetwork(freq, latent, hidden=6)
        elif kind == "tcvae":
            network = TcvaeNetwork(freq, latent, hidden=8, encoder_hidden=8)
        else:
            raise ValueError(f"expected 'vae', 'rvae' or 'tcvae', not {kind!r}")
    return network.eval().requires_grad_(False)


def perturb(network: torch.nn.Module, sd: float = 0.1) -> Any:
    """Add Gaussian noise to every weight, so that no layer is zero; no gradients from here on."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(sd * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def trace_model(
    model: Callable[[Frames], ComplexNormal],
    frames: Frames,
    recordings: int = 2,
    values: dict[str, torch.Tensor] | None = None,
) -> poutine.Trace:
    """Pyro's trace of a speech or noise model under the plate of recordings, given some values."""

    def program() -> ComplexNormal:
        with pyro.plate("recording", recordings, dim=-3):
            return model(frames)

    run = reuse_plates()(program)
    if values is not None:
        run = poutine.condition(run, data=values)
    return poutine.trace(run).get_trace()


def arrays_of(posterior: Posterior) -> dict[str, np.ndarray]:
    """Every array of a posterior by name, to compare two of them."""
    moments = {name: getattr(posterior, name) for name in ("mean", "variance", "mixture", "speech")}
    return {**moments, **posterior.latents, **posterior.trace}


# --- the command line ----------------------------------------------------------------------------


def run_cli(*arguments: Any, **environment: str) -> Any:
    """Run ``avse-ppl`` with these arguments in this process; exit code, stdout and stderr."""
    from typer.testing import CliRunner

    from avse_ppl.cli.main import app

    return CliRunner().invoke(app, [str(a) for a in arguments], env=environment or None)


def error_of(result: Any) -> str:
    """Return the one line that a refused command prints on stderr, without ``error:``."""
    assert (result.exit_code, result.stdout) == (2, ""), (result.stdout, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0].removeprefix("error: ")
