"""Weights published by other research code, read without running any of it."""

from __future__ import annotations

import configparser
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from avse_ppl.models.weights import CLEAN_START_GAIN_DB, NETWORKS, save_weights
from avse_ppl.stft import Stft

# Speech divided by its peak has about this mean STFT power per bin over active frames, dB, with a
# 1024-sample sine window: the median of 400 clips of read speech is 11.0, nine tenths of them lie
# above 8. The published weights were trained on speech so divided.
PEAK_NORMALISED_LEVEL_DB = 11.0

_VAE = MappingProxyType(
    {
        "mlp_x_z.linear": "encoder.{2}",
        "mlp_z_x.linear": "decoder.{2}",
        "inf_mean": "encoder_mean",
        "inf_logvar": "encoder_logvar",
        "gen_logvar": "decoder_logpower",
    }
)
_RVAE = MappingProxyType(
    {
        "rnn_g_x": "encoder",
        "rnn_g_z": "encoder_feedback",
        "rnn_h": "decoder",
        "inf_mean": "encoder_mean",
        "inf_logvar": "encoder_logvar",
        "gen_logvar": "decoder_logpower",
    }
)


def import_weights(file: str | Path, config: str | Path, output: str | Path) -> Path:
    """Convert published A-VAE or RVAE weights into a folder that ``load_speech`` reads.

    The checkpoint is opened with ``weights_only=True``: tensors are read, code is not.

    Parameters
    ----------
    file
        The ``.pt`` state dictionary.
    config
        The ``config.ini`` published beside it.
    output
        Folder to write.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the checkpoint holds more than tensors, the model is of another kind, or weights and
        config do not belong together.
    """
    tensors = _read_checkpoint(Path(file))
    settings = _read_ini(Path(config))
    name, stft = settings["name"], settings["stft"]
    try:
        kind, keywords, rename = _KINDS[name](settings)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{config}: its section [Network] does not describe a {name}: {error}"
        ) from None
    renamed = {_renamed(key, rename): value for key, value in tensors.items()}
    network = NETWORKS[kind](freq=stft.freq, **keywords)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in renamed.items()}
    if expected != found:
        wrong = sorted(k for k in expected | found if expected.get(k) != found.get(k))[:4]
        detail = "; ".join(f"{k}: expected {expected.get(k)}, found {found.get(k)}" for k in wrong)
        raise ValueError(f"{file} does not match {config} ({detail})")
    network.load_state_dict(renamed)
    card = {
        "source": f"imported from {Path(file).name}; licence and data as its authors state",
        "licence": "that of the published weights",
    }
    return save_weights(
        output, network, kind, keywords, stft, name=f"imported {name}", card=card,
        level_db=PEAK_NORMALISED_LEVEL_DB, start_gain_db=CLEAN_START_GAIN_DB,
    )  # fmt: skip


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch remarks on files that it refuses
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise nearly anything here
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path} is not a plain state dictionary ({reason}). Only tensors are imported; save "
            "them with torch.save(model.state_dict(), ...)."
        ) from None
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ValueError(
            f"{path} holds {type(tensors).__name__}, expected a dictionary of tensors only"
        )
    return dict(tensors)


def _read_ini(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no config at {path}")
    ini = configparser.ConfigParser()
    try:
        ini.read(path)
        mode = ini.get("Network", "vae_mode", fallback=ini.get("Network", "name"))
        rate_hz = ini.getint("STFT", "fs")
        n_fft = round(ini.getfloat("STFT", "wlen_sec") * rate_hz)
        hop = round(ini.getfloat("STFT", "hop_percent") * n_fft)
        settings = {
            "name": mode,
            "stft": Stft(n_fft, hop, "sine", rate_hz),
            "latent": ini.getint("Network", "z_dim"),
            "network": dict(ini["Network"]),
        }
    except (configparser.Error, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is not a config of the published VAE family: {str(error).splitlines()[0]}"
        ) from None
    if mode not in _KINDS:
        raise ValueError(f"{path} describes a {mode!r}; can import {sorted(_KINDS)}")
    return settings


def _vae(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, str]]:
    hidden = tuple(int(n) for n in settings["network"]["dense_x_z"].split(","))
    return "vae", {"latent": settings["latent"], "hidden": hidden, "log_input": False}, _VAE


def _rvae(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], Mapping[str, str]]:
    hidden = int(settings["network"]["dim_rnn_h"])
    keywords = {
        "latent": settings["latent"], "hidden": hidden, "log_input": False, "feedback": True,
    }  # fmt: skip
    return "rvae", keywords, _RVAE


_KINDS: Mapping[str, Callable[..., tuple[str, dict[str, Any], Mapping[str, str]]]] = (
    MappingProxyType({"A-VAE": _vae, "RVAE": _rvae})
)


def _renamed(key: str, rename: Mapping[str, str]) -> str:
    """Return our name of a published tensor; layer ``linearN`` is item ``2 N`` of our sequence."""
    for old, new in rename.items():
        if not key.startswith(old):
            continue
        rest = key[len(old) :]
        if "{2}" in new:
            index, _, rest = rest.partition(".")
            return f"{new.replace('{2}', str(2 * int(index)))}.{rest}"
        return new + rest
    return key
