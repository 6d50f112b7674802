"""Weights of learned priors on disk: safetensors, a config and a model card; never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from avse_ppl.models.networks import RvaeNetwork, VaeNetwork
from avse_ppl.stft import Stft

NETWORKS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"vae": VaeNetwork, "rvae": RvaeNetwork}
)
PRETRAINED = Path(__file__).parent / "pretrained"


def save_weights(
    folder: str | Path,
    network: nn.Module,
    kind: str,
    settings: Mapping[str, Any],
    stft: Stft,
    *,
    name: str,
    card: Mapping[str, Any],
    level_db: float = 0.0,
) -> Path:
    """Write ``weights.safetensors``, ``config.json`` and ``README.md`` into a folder.

    Parameters
    ----------
    folder
        Where to; made if missing.
    network, kind, settings
        The module, its key in ``NETWORKS``, and the keyword arguments that rebuild it.
    stft
        The front end it was trained with.
    name
        What it is called.
    card
        What the model card says.
    level_db
        Mean power of active speech in the training data, dB, relative to unit STFT power.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    beside = folder / ".weights.safetensors"
    save_file(tensors, beside)
    os.replace(beside, folder / "weights.safetensors")
    config = {
        "name": name, "network": kind, "settings": dict(settings), "stft": asdict(stft),
        "level_db": level_db,
    }  # fmt: skip
    _write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")
    _write_text(folder / "README.md", _card_text(config, card, network))
    return folder


def load_network(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network and its config from a folder, frozen and in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If a file is corrupt, or weights and config do not belong together.
    """
    folder = Path(folder)
    config = _read_config(folder)
    network = NETWORKS[config["network"]](freq=Stft(**config["stft"]).freq, **config["settings"])
    tensors = _read_tensors(folder / "weights.safetensors")
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if expected != found:
        wrong = sorted(k for k in expected | found if expected.get(k) != found.get(k))[:4]
        detail = "; ".join(f"{k}: expected {expected.get(k)}, found {found.get(k)}" for k in wrong)
        raise ValueError(
            f"{folder}: the weights do not match config.json ({detail}). "
            "Copy both files from the same place."
        )
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), config


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder written by 'avse-ppl train' or "
            "'avse-ppl import-weights'"
        )
    try:
        config = json.loads(path.read_text())
        missing = {"network", "settings", "stft", "level_db"} - set(config)
        if missing or config["network"] not in NETWORKS:
            raise KeyError(f"missing {sorted(missing)}, network {config.get('network')!r}")
        Stft(**config["stft"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a config of this library: {error}") from None
    return config


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it next to its config.json")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); copy it again"
        ) from None


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name("." + path.name)
    beside.write_text(text)
    os.replace(beside, path)


def _card_text(config: Mapping[str, Any], card: Mapping[str, Any], network: nn.Module) -> str:
    parameters = sum(p.numel() for p in network.parameters())
    lines = [
        f"# {config['name']}",
        "",
        f"Speech prior for avse-ppl: `{config['network']}`, {parameters:,} parameters.",
        "",
    ]
    for key, value in card.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            lines += [f"**{key}**", ""]
            lines += [f"- {k}: {_round(v)}" for k, v in value.items()] + [""]
        else:
            lines += [f"**{key}**: {value}", ""]
    return "\n".join(lines)


def _round(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value
