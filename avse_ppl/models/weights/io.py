"""Weights of networks on disk: safetensors, a config and a model card; never a pickle."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from avse_ppl.models.networks import (
    LipEncoder,
    RvaeNetwork,
    SequentialVaeNetwork,
    TcvaeNetwork,
    VaeNetwork,
)
from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.networks.published_av_vae import PublishedAvVaeNetwork
from avse_ppl.models.networks.published_dkf import PublishedDkfNetwork
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.signal.stft import Stft
from avse_ppl.utils.files import atomic_path, read_json

NETWORKS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "vae": VaeNetwork,
        "rvae": RvaeNetwork,
        "tcvae": TcvaeNetwork,
        "dynamic": SequentialVaeNetwork,
        "published-dkf": PublishedDkfNetwork,
        "published-avvae": PublishedAvVaeNetwork,
        "lips": LipEncoder,
        "reliability": ReliabilityNetwork,
        "score": ScoreNetwork,
        "latent-diffusion": LatentDiffusionNetwork,
        "tcn": TcnNetwork,
        "attention-fusion": AttentionFusionNetwork,
    }
)
_WITHOUT_STFT = {"lips": "Visual encoder", "reliability": "Reliability network"}
_USES = {**_WITHOUT_STFT, "predictor": "Predictor"}  # of what is no prior
_FORMER_SETTINGS = {"spread": "sigma_data"}  # of networks, as older configs call them
DEFAULT_RELIABILITY = "reliability"
CLEAN_START_GAIN_DB = -4.0  # for encoders that were trained on clean speech only
PRETRAINED = Path(__file__).parents[1] / "pretrained"


def save_weights(
    folder: str | Path,
    network: nn.Module,
    kind: str,
    settings: Mapping[str, Any],
    stft: Stft,
    *,
    name: str,
    card: Mapping[str, Any],
    gain_db: float = 0.0,
    start_gain_db: float = 0.0,
    use: str = "speech",
    visual_encoder: str | None = None,
    visual_weight: float = 1.0,
    encoder_width: float = 1.0,
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
    gain_db
        Mean power of active speech in the training data, dB, relative to unit STFT power. Key
        ``level_db`` of the config.
    start_gain_db
        See `LatentSpeech`.
    use
        What it is: a prior of ``"speech"`` or ``"noise"``, or an encoder of ``"lips"``.
    visual_encoder
        Name of the visual encoder of an audio-visual prior: a folder within its own, or shipped
        weights.
    visual_weight
        See `LatentSpeech`. Key ``trust`` of the config.
    encoder_width
        See `LatentSpeech`.

    Returns
    -------
    Path
        The folder.
    """
    from safetensors.torch import save

    tensors = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    config = {
        "name": name, "network": kind, "settings": dict(settings), "stft": asdict(stft),
        "level_db": gain_db, "start_gain_db": start_gain_db, "use": use,
    }  # fmt: skip
    config |= {} if encoder_width == 1.0 else {"encoder_width": encoder_width}
    config |= {} if visual_encoder is None else {"lips": visual_encoder, "trust": visual_weight}
    data = save(tensors)
    config["sha256"] = hashlib.sha256(data).hexdigest()
    files = {
        "weights.safetensors": data,
        "config.json": f"{json.dumps(config, indent=2)}\n".encode(),
        "README.md": format_card(config, card, network).encode(),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # All files are written before any is renamed, so that they appear together or not at all.
    with ExitStack() as stack:
        for file, content in files.items():
            stack.enter_context(atomic_path(folder / file)).write_bytes(content)
    return folder


def load_network(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a network and its config from a folder, frozen and in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its two files is missing.
    ValueError
        If a file is corrupt, or weights and config do not belong together, by their shapes or by
        the checksum ``sha256`` of the config.
    """
    folder = Path(folder)
    config = read_config(folder)
    # Check that the weights are its own, before it is built at the sizes that the config claims.
    kind = config["network"]
    grid: dict[str, Any] = {} if kind in _WITHOUT_STFT else {"freq": Stft(**config["stft"]).freq}
    settings: Any = config["settings"]
    settings = {_FORMER_SETTINGS.get(key, key): value for key, value in settings.items()}
    found = read_shapes(folder / "weights.safetensors")
    try:
        expected = outline_network(kind, {**grid, **settings}, len(found))
    except Exception as error:  # the settings reach every line of every network
        raise ValueError(
            f"{folder / 'config.json'}: its settings do not make a {kind!r} network: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from None
    if expected != found:
        wrong = sorted(k for k in expected | found if expected.get(k) != found.get(k))[:4]
        detail = "; ".join(f"{k}: expected {expected.get(k)}, found {found.get(k)}" for k in wrong)
        raise ValueError(
            f"{folder}: the weights do not match config.json ({detail}), "
            "or are of an earlier version of the network and have to be trained anew. "
            "Copy both files from the same place."
        )
    # Build the network.
    network = NETWORKS[kind](**grid, **settings)
    tensors = read_tensors(folder / "weights.safetensors")
    broken = sorted(key for key, value in tensors.items() if not bool(value.isfinite().all()))
    if broken:
        raise ValueError(
            f"{folder}: the weights {broken[:4]} hold NaN or infinity; copy them again"
        )
    check_sum(folder, config.get("sha256"))
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), config


def check_sum(folder: Path, expected: str | None) -> None:
    """Raise ``ValueError`` where the weights are not those that a checksum was taken of.

    Parameters
    ----------
    folder
        Of the weights.
    expected
        SHA-256 of ``weights.safetensors``, hexadecimal; None, as in older configs: any will do.
    """
    if expected is None:
        return
    with open(folder / "weights.safetensors", "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{folder / 'weights.safetensors'} is damaged or of another training: its SHA-256 is "
            f"{found[:12]}..., config.json says {expected[:12]}...; copy both files again from the "
            "same place (shipped weights: install avse-ppl again), or take sha256 out of "
            "config.json if you changed the weights yourself"
        )


def outline_network(
    kind: str, settings: Mapping[str, Any], tensors: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a network, found without memory for them.

    Parameters
    ----------
    kind, settings
        Key in ``NETWORKS``, and the keyword arguments of the network.
    tensors
        How many there are in the file: a network of many more is given up early.

    Raises
    ------
    ValueError
        If there are many more; and what a network says about its settings.

    Examples
    --------
    >>> shapes = outline_network("vae", {"freq": 9, "latent": 10**9, "hidden": (4,)}, 10)
    >>> shapes["encoder_mean.bias"]
    (1000000000,)
    """
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > 4 * tensors + 16:
            raise ValueError(f"it would have over {made - 1} weights, the file has {tensors}")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            network = NETWORKS[kind](**settings)
    finally:
        hook.remove()
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def save_lip_encoder(
    folder: str | Path, network: LipEncoder, *, name: str, card: Mapping[str, Any]
) -> Path:
    """Write a visual encoder as `save_weights` writes a prior."""
    settings = {"features": network.features, "width": network.width}
    return save_weights(folder, network, "lips", settings, Stft(), name=name, card=card, use="lips")


def load_lip_encoder(folder: str | Path) -> tuple[LipEncoder, dict[str, Any]]:
    """Read a visual encoder by name or folder; raises as `load_network` does."""
    network, config = load_network(locate_weights(folder))
    if not isinstance(network, LipEncoder):
        raise ValueError(f"{folder} holds a {config['network']!r} network; expected 'lips'")
    return network, config


def load_shared(network: nn.Module, source: str | Path | nn.Module, only: str = "") -> None:
    """Initialise a network with those weights of another that have the same names and shapes.

    Parameters
    ----------
    network
        Changed in place.
    source
        The other, or the name or folder of its weights.
    only
        Beginning of the names that are taken.

    Raises
    ------
    ValueError
        If they have nothing in common.
    """
    other = source if isinstance(source, nn.Module) else load_network(locate_weights(source))[0]
    mine = network.state_dict()
    shared = {
        key: value
        for key, value in other.state_dict().items()
        if key.startswith(only) and key in mine and mine[key].shape == value.shape
    }
    if not shared:
        raise ValueError(f"the weights to start from, {source}, fit no part of the network")
    network.load_state_dict({**mine, **shared})


def save_reliability(
    folder: str | Path, network: ReliabilityNetwork, *, name: str, card: Mapping[str, Any]
) -> Path:
    """Write the network as `save_weights` writes a prior; returns the folder."""
    return save_weights(
        folder, network, "reliability", network.settings, Stft(), name=name, card=card,
        use="reliability",
    )  # fmt: skip


def load_reliability(folder: str | Path = DEFAULT_RELIABILITY) -> ReliabilityNetwork:
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
    network, config = load_network(locate_weights(folder))
    if not isinstance(network, ReliabilityNetwork):
        raise ValueError(f"{folder} holds a {config['network']!r} network; expected 'reliability'")
    return network


def init_from_lip_encoder(network: ReliabilityNetwork, encoder: str | Path) -> list[str]:
    """Initialise the lip tower from those weights of a visual encoder that fit it.

    Parameters
    ----------
    network
        Changed in place.
    encoder
        Name or folder of the visual encoder, see `save_lip_encoder`.

    Returns
    -------
    list of str
        Names of the weights that were copied.

    Raises
    ------
    FileNotFoundError
        If there are no weights.
    ValueError
        If none of them fits.
    """
    tensors = read_tensors(locate_weights(encoder) / "weights.safetensors")
    tower = network.agreement.lips
    mine = tower.state_dict()
    shared = {k: v for k, v in tensors.items() if k in mine and mine[k].shape == v.shape}
    if not shared:
        raise ValueError(
            f"no weight of '{encoder}' fits the tower of the lips; expected a visual encoder with "
            f"{network.settings['features']} features and width {network.settings['tower']}"
        )
    tower.load_state_dict({**mine, **shared})
    return sorted(shared)


def is_shipped(name: object) -> bool:
    """Whether weights of that name come with the library; a path is not a name."""
    if name is None or Path(str(name)).name != str(name):
        return False
    return (PRETRAINED / str(name) / "config.json").is_file()


def locate_weights(folder: str | Path) -> Path:
    """Folder of shipped weights by their name; any other folder as it is."""
    return PRETRAINED / str(folder) if is_shipped(folder) else Path(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the ``config.json`` of a folder of weights; raises as `load_network` does."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder written by 'avse-ppl train' or "
            "'avse-ppl import-weights'"
        )
    config = read_json(path, "config of this library")
    try:
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, expected an object")
        missing = {"network", "settings", "stft", "level_db"} - set(config)
        if missing:
            raise ValueError(f"it lacks {sorted(missing)}")
        if config["network"] not in NETWORKS:
            raise ValueError(f"network is {config['network']!r}, known are {sorted(NETWORKS)}")
        for key in ("settings", "stft"):
            if not isinstance(config[key], dict):
                raise ValueError(f"{key} is {config[key]!r}, expected an object")
        for key in ("name", "use", "lips", "sha256"):
            if not isinstance(config.get(key, ""), str):
                raise ValueError(f"{key} is {config[key]!r}, expected a text")
        for key, value in config["stft"].items():
            if key != "window" and (isinstance(value, bool) or not isinstance(value, int)):
                raise ValueError(f"{key} of stft is {value!r}, expected a whole number")
        if Stft(**config["stft"]).sample_rate_hz < 1:
            raise ValueError(f"sample_rate_hz of stft is {config['stft']['sample_rate_hz']}")
        for key, usual in (
            ("level_db", 0.0), ("start_gain_db", 0.0), ("trust", 1.0), ("encoder_width", 1.0),
        ):  # fmt: skip
            value = float(config.get(key, usual))
            if not math.isfinite(value):
                raise ValueError(f"{key} is {value}, expected a finite number")
            config |= {key: value} if key in config or key.endswith("_db") else {}
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a config of this library: {error}") from None
    return config


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of a safetensors file, without the tensors; raises as `load_network` does."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it next to its config.json")
    try:
        with safe_open(path, "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); copy it again"
        ) from None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; raises as `load_network` does."""
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


def format_card(config: Mapping[str, Any], card: Mapping[str, Any], network: nn.Module) -> str:
    """Model card of a network, Markdown."""
    parameters = sum(p.numel() for p in network.parameters())
    kind = _USES.get(config["use"], f"{config['use'].capitalize()} prior")
    lines = [
        f"# {config['name']}",
        "",
        f"{kind} for avse-ppl: `{config['network']}`, {parameters:,} parameters.",
        "",
    ]
    for key, value in card.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            lines += [f"**{key}**", ""]
            rounded = {k: f"{v:.7g}" if isinstance(v, float) else v for k, v in value.items()}
            lines += [f"- {k}: {v}" for k, v in rounded.items()] + [""]
        else:
            lines += [f"**{key}**: {value}", ""]
    return "\n".join(lines)
