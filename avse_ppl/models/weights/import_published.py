"""Weights published by other research code, read without running any of it."""

from __future__ import annotations

import configparser
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avse_ppl.models.weights.io import CLEAN_START_GAIN_DB, NETWORKS, save_weights
from avse_ppl.models.weights.published import KINDS, NOTES, renamed_key
from avse_ppl.signal.stft import Stft

# Speech divided by its peak has about this mean STFT power per bin over active frames, dB, with a
# 1024-sample sine window: the median of 400 clips of read speech is 11.0, nine tenths of them lie
# above 8. The published weights were trained on speech so divided.
PEAK_NORMALISED_LEVEL_DB = 11.0


def import_weights(file: str | Path, config: str | Path, output: str | Path) -> Path:
    """Convert published weights of the VAE family into a folder that ``load_speech`` reads.

    A-VAE, RVAE, A-DKF, and AV-VAE, which needs a visual encoder that is not published with it: its
    card says how to give it one.

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
        kind, keywords, rename = KINDS[name](settings)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{config}: its section [Network] does not describe a {name}: {error}"
        ) from None
    renamed = {renamed_key(key, rename): value for key, value in tensors.items()}
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
    card |= {"note": NOTES[name]} if name in NOTES else {}
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
    if mode not in KINDS:
        raise ValueError(f"{path} describes a {mode!r}; can import {sorted(KINDS)}")
    return settings
