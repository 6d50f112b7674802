"""Weights of the reliability network on disk, as those of priors: safetensors, config, card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.io import (
    PRETRAINED,
    _read_tensors,
    is_shipped,
    load_network,
    save_weights,
)
from avse_ppl.signal.stft import Stft

SHIPPED = "reliability"


def save_reliability(
    folder: str | Path, network: ReliabilityNetwork, *, name: str, card: Mapping[str, Any]
) -> Path:
    """Write the network as `save_weights` writes a prior; returns the folder."""
    return save_weights(
        folder, network, "reliability", network.settings, Stft(), name=name, card=card,
        use="reliability",
    )  # fmt: skip


def load_reliability(folder: str | Path = SHIPPED) -> ReliabilityNetwork:
    """Read a reliability network by name or folder, frozen and in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If a file is corrupt, or it holds another network.

    Examples
    --------
    >>> sum(p.numel() for p in load_reliability().parameters()) < 1_000_000
    True
    """
    place = PRETRAINED / str(folder) if is_shipped(folder) else Path(folder)
    network, config = load_network(place)
    if not isinstance(network, ReliabilityNetwork):
        raise ValueError(f"{folder} holds a {config['network']!r} network; expected 'reliability'")
    return network


def init_from_lip_encoder(network: ReliabilityNetwork, eyes: str | Path) -> list[str]:
    """Start the tower of the lips from those weights of a visual encoder that fit it.

    Parameters
    ----------
    network
        Changed in place.
    eyes
        Name or folder of the encoder, see `avse_ppl.models.weights.io.save_lips`.

    Returns
    -------
    list of str
        Which were taken.

    Raises
    ------
    FileNotFoundError
        If there are no weights.
    ValueError
        If none of them fits.
    """
    place = PRETRAINED / str(eyes) if is_shipped(eyes) else Path(eyes)
    tensors = _read_tensors(place / "weights.safetensors")
    tower = network.agreement.lips
    mine = tower.state_dict()
    shared = {k: v for k, v in tensors.items() if k in mine and mine[k].shape == v.shape}
    if not shared:
        raise ValueError(
            f"no weight of '{eyes}' fits the tower of the lips; expected a visual encoder with "
            f"{network.settings['features']} features and width {network.settings['tower']}"
        )
    tower.load_state_dict({**mine, **shared})
    return sorted(shared)
