"""What published models are called, and what their tensors are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Kind = tuple[str, dict[str, Any], Mapping[str, str]]  # network, its settings, names of tensors
VISUAL_FEATURES = 512  # of the lip reader that the published AV-VAE sees through

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
            f"Sees the speaker through {VISUAL_FEATURES} features a frame of a lip reader "
            "(ResNet-18, trained on words of broadcasts) that is published "
            "elsewhere and not part of these weights. Give the prior such an encoder: "
            "`dataclasses.replace(load_speech(folder), lips=encoder)`, which maps crops `(1, "
            f"picture, 88, 88)`, 25 a second, to `(1, {VISUAL_FEATURES}, picture)`. There is no "
            "audio-only mode: without lips it refuses, and frames without a face are not to be "
            "trusted."
        ),
    }
)


def _widths(settings: Mapping[str, Any], key: str) -> tuple[int, ...]:
    return tuple(int(n) for n in settings["network"][key].split(","))


def _vae(settings: Mapping[str, Any]) -> Kind:
    hidden = _widths(settings, "dense_x_z")
    return "vae", {"latent": settings["latent"], "hidden": hidden, "log_input": False}, _VAE


def _rvae(settings: Mapping[str, Any]) -> Kind:
    hidden = int(settings["network"]["dim_rnn_h"])
    keywords = {
        "latent": settings["latent"], "hidden": hidden, "log_input": False, "feedback": True,
    }  # fmt: skip
    return "rvae", keywords, _RVAE


def _avvae(settings: Mapping[str, Any]) -> Kind:
    hidden = _widths(settings, "dense_x_z")
    if len(hidden) != 1:
        raise ValueError(f"dense_x_z must be one width, found {len(hidden)}")
    keywords = {"latent": settings["latent"], "hidden": hidden[0], "visual": VISUAL_FEATURES}
    return "published-avvae", keywords, _AVVAE


def _dkf(settings: Mapping[str, Any]) -> Kind:
    found = {key: settings["network"][key].strip() for key in _DKF_WIRING}
    if found != _DKF_WIRING:
        raise ValueError(f"expected the wiring {dict(_DKF_WIRING)}, found {found}")
    past = _widths(settings, "dense_ztm1_g")
    keywords = {
        "latent": settings["latent"],
        "encoder": _widths(settings, "dense_x_gx"),
        "memory": int(settings["network"]["dim_rnn_gx"]),
        "past": past,
        "joint": _widths(settings, "dense_g_z"),
        "decoder": _widths(settings, "dense_z_x"),
    }
    last = {"mlp_ztm1_g.linear_last": f"encoder_past.{2 * len(past)}"}
    return "published-dkf", keywords, last | dict(_DKF)


_DKF_WIRING: Mapping[str, str] = MappingProxyType(
    {"num_rnn_gx": "1", "bidir_gx": "False", "rnn": "LSTM", "inference": "gated"}
)
KINDS: Mapping[str, Callable[[Mapping[str, Any]], Kind]] = MappingProxyType(
    {"A-DKF": _dkf, "A-VAE": _vae, "AV-CVAE": _avvae, "RVAE": _rvae}
)


def renamed_key(key: str, rename: Mapping[str, str]) -> str:
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
