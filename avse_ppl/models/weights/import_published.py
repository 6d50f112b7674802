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

from avse_ppl.models.weights.io import CLEAN_START_GAIN_DB, NETWORKS, save_weights
from avse_ppl.signal.stft import Stft

# Speech divided by its peak has about this mean STFT power per bin over active frames, dB, with a
# 1024-sample sine window: the median of 400 clips of read speech is 11.0, nine tenths of them lie
# above 8. The published weights were trained on speech so divided.
PEAK_NORMALISED_LEVEL_DB = 11.0

Kind = tuple[str, dict[str, Any], Mapping[str, str]]  # network, its settings, names of tensors
VISUAL_FEATURES = 512  # of the lip reader that is the visual encoder of the published AV-VAE

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
_AVVAE = MappingProxyType(
    {
        "mlp_x_z.linear": "encoder.{2}",
        "encoder_layerV": "encoder_sight.0",
        "layer_mix_encoder": "encoder_fusion.0",
        "inf_mean": "encoder_mean",
        "inf_logvar": "encoder_logvar",
        "prior_layerV": "prior_sight.0",
        "zprior_mean_layer": "prior_mean",
        "zprior_logvar_layer": "prior_logvar",
        "mlp_z_x.linear": "decoder.{2}",
        "decoder_layerV": "decoder_sight.0",
        "layer_mix_decoder": "decoder_fusion.0",
        "gen_logvar": "decoder_logpower",
    }
)
_DKF = MappingProxyType(
    {
        "mlp_x_gx.linear": "encoder.{2}",
        "rnn_gx": "encoder_backward",
        "mlp_ztm1_g.linear": "encoder_past.{2}",
        "mlp_g_z.linear": "encoder_joint.{2}",
        "inf_mean": "encoder_mean",
        "inf_logvar": "encoder_logvar",
        "mlp_gate.linear1": "gate.0",
        "mlp_gate.linear2": "gate.2",
        "mlp_z_prop.linear1": "proposal.0",
        "mlp_z_prop.linear2": "proposal.2",
        "prior_mean": "line",
        "prior_logvar.1": "variance",
        "mlp_z_x.linear": "decoder.{2}",
        "gen_logvar": "decoder_logpower",
    }
)
NOTES: Mapping[str, str] = MappingProxyType(
    {
        "AV-CVAE": (
            f"Takes {VISUAL_FEATURES} features for each video frame, of a lip reader "
            "(ResNet-18, trained on words of broadcasts) that is published elsewhere and not "
            "part of these weights. Give the prior such an encoder: "
            "`dataclasses.replace(load_speech(folder), visual_encoder=encoder)`, "
            f"which maps crops `(1, video_frame, 88, 88)`, 25 a second, to `(1, {VISUAL_FEATURES}, "
            "video_frame)`. There is no audio-only mode: without lips it refuses, and frames "
            "without a face are not to be trusted."
        ),
    }
)


def parse_widths(settings: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """Widths of layers, written as numbers with commas between them."""
    return tuple(int(n) for n in settings["network"][key].split(","))


def describe_vae(settings: Mapping[str, Any]) -> Kind:
    """Network, settings and tensor names of a published VAE."""
    hidden = parse_widths(settings, "dense_x_z")
    return "vae", {"latent": settings["latent"], "hidden": hidden, "log_input": False}, _VAE


def describe_rvae(settings: Mapping[str, Any]) -> Kind:
    """Network, settings and tensor names of a published RVAE."""
    hidden = int(settings["network"]["dim_rnn_h"])
    keywords = {
        "latent": settings["latent"], "hidden": hidden, "log_input": False, "feedback": True,
    }  # fmt: skip
    return "rvae", keywords, _RVAE


def describe_avvae(settings: Mapping[str, Any]) -> Kind:
    """Network, settings and tensor names of a published AV-VAE."""
    hidden = parse_widths(settings, "dense_x_z")
    if len(hidden) != 1:
        raise ValueError(f"dense_x_z must be one width, found {len(hidden)}")
    keywords = {"latent": settings["latent"], "hidden": hidden[0], "visual": VISUAL_FEATURES}
    return "published-avvae", keywords, _AVVAE


def describe_dkf(settings: Mapping[str, Any]) -> Kind:
    """Network, settings and tensor names of a published DKF."""
    found = {key: settings["network"][key].strip() for key in _DKF_WIRING}
    if found != _DKF_WIRING:
        raise ValueError(f"expected the wiring {dict(_DKF_WIRING)}, found {found}")
    past = parse_widths(settings, "dense_ztm1_g")
    keywords = {
        "latent": settings["latent"],
        "encoder": parse_widths(settings, "dense_x_gx"),
        "memory": int(settings["network"]["dim_rnn_gx"]),
        "past": past,
        "joint": parse_widths(settings, "dense_g_z"),
        "decoder": parse_widths(settings, "dense_z_x"),
    }
    last = {"mlp_ztm1_g.linear_last": f"encoder_past.{2 * len(past)}"}
    return "published-dkf", keywords, last | dict(_DKF)


_DKF_WIRING: Mapping[str, str] = MappingProxyType(
    {"num_rnn_gx": "1", "bidir_gx": "False", "rnn": "LSTM", "inference": "gated"}
)
KINDS: Mapping[str, Callable[[Mapping[str, Any]], Kind]] = MappingProxyType(
    {"A-DKF": describe_dkf, "A-VAE": describe_vae, "AV-CVAE": describe_avvae, "RVAE": describe_rvae}
)


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
    tensors = read_checkpoint(Path(file))
    settings = read_ini(Path(config))
    name, stft = settings["name"], settings["stft"]
    try:
        kind, keywords, rename = KINDS[name](settings)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{config}: its section [Network] does not describe a {name}: {error}"
        ) from None
    renamed = {rename_key(key, rename): value for key, value in tensors.items()}
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
        gain_db=PEAK_NORMALISED_LEVEL_DB, start_gain_db=CLEAN_START_GAIN_DB,
    )  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary of tensors without running code."""
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


def read_ini(path: Path) -> dict[str, Any]:
    """Read name, front end and network settings of a published configuration."""
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


def rename_key(key: str, rename: Mapping[str, str]) -> str:
    """Rename a published tensor; layer ``linearN`` is item ``2 N`` of our sequence."""
    for old, new in rename.items():
        if not key.startswith(old):
            continue
        rest = key[len(old) :]
        if "{2}" in new:
            index, _, rest = rest.partition(".")
            return f"{new.replace('{2}', str(2 * int(index)))}.{rest}"
        return new + rest
    return key
