"""Speech priors by name or from a folder of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from avse_ppl.models.networks import LipEncoder
from avse_ppl.models.networks.score_cnn import SpectralDenoiser
from avse_ppl.models.protocols import LatentDenoisingNetwork
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.latent import LatentSpeech, PowerDecoder
from avse_ppl.models.speech.score import ScoreSpeech
from avse_ppl.models.validation import unknown_name
from avse_ppl.models.weights.io import PRETRAINED, load_lip_encoder, load_network
from avse_ppl.signal.stft import Stft


def pretrained_names() -> list[str]:
    """Names of the speech priors shipped with the library."""
    configs = PRETRAINED.glob("*/config.json")
    return sorted(p.parent.name for p in configs if read_use(json.loads(p.read_text())) == "speech")


def load_speech(
    name: str | Path, *, amortised: bool = True
) -> LatentSpeech | ScoreSpeech | GaussianSpeech:
    """Load a speech prior: ``"gaussian"``, the name of shipped weights, or a folder of weights.

    Parameters
    ----------
    name
        For instance ``"rvae"``, or a folder written by ``avse-ppl train`` or
        ``avse-ppl import-weights``.
    amortised
        False for the prior alone, without the measurements of its encoder, see `LatentSpeech`.
        Encoders that were not trained on mixtures do not measure.

    Raises
    ------
    ValueError
        If the name is unknown, the weights are those of a noise prior, or the folder's files are
        corrupt or do not belong together.
    FileNotFoundError
        If a file of the folder is missing.

    Examples
    --------
    >>> load_speech("gaussian").gain_sd_db
    10.0
    """
    if str(name) == "gaussian":
        return GaussianSpeech()
    folder = PRETRAINED / str(name)
    if not (folder / "config.json").is_file():
        folder = Path(name)
        if not folder.is_dir():
            raise unknown_name("speech prior", str(name), ["gaussian", *pretrained_names()])
    network, config = load_network(folder)
    if read_use(config) != "speech":
        raise ValueError(
            f"{folder} holds a {read_use(config)} prior; expected a speech prior. Use it as the "
            "noise of a scene, with load_noise"
        )
    visual_encoder = load_visual_encoder(config, folder)
    if isinstance(network, SpectralDenoiser):
        return ScoreSpeech(
            network, visual_encoder=visual_encoder, visual_weight=config.get("trust", 1.0),
            stft=Stft(**config["stft"]), name=config.get("name", folder.name),
        )  # fmt: skip
    return LatentSpeech(
        network=cast(PowerDecoder, network), gain_db=config["level_db"],
        start_gain_db=config["start_gain_db"], visual_encoder=visual_encoder,
        amortised=amortised and knows_mixtures(network, config),
        encoder_width=config.get("encoder_width", 1.0) or 1.0,
        visual_weight=config.get("trust", 1.0),
        stft=Stft(**config["stft"]),
        name=config.get("name", folder.name),
    )  # fmt: skip


def knows_mixtures(network: Any, config: Mapping[str, Any]) -> bool:
    """Whether an encoder was trained on mixtures, and knows enough of them to measure latents."""
    width = config.get("encoder_width", 1.0)
    known = config["start_gain_db"] == 0.0 and width > 0.0
    return known and not isinstance(network, LatentDenoisingNetwork)


def load_visual_encoder(config: Mapping[str, Any], folder: Path) -> LipEncoder | None:
    """Visual encoder of an audio-visual prior: in its own folder, or shipped."""
    if "lips" not in config:
        return None
    own = folder / str(config["lips"])
    return load_lip_encoder(own if own.is_dir() else config["lips"])[0]


def read_use(config: Mapping[str, Any]) -> str:
    """Use of a network: a prior of speech, the default, or of noise, or a visual encoder."""
    return str(config.get("use", "speech"))
