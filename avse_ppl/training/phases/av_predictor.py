"""Training of an audio-visual predictor: its fusion and attention, beside a trunk that stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.lip_encoder import resample_features
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.weights.io import (
    load_lip_encoder,
    load_network,
    load_reliability,
    locate_weights,
    save_weights,
)
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.av_crops import MouthCrops
from avse_ppl.training.datasets.av_predictor_crops import AVPredictorCrops, SeenMixture
from avse_ppl.training.objective import freeze_except
from avse_ppl.training.phases.audio_visual import compute_frame_times, copy_lips, name_lips
from avse_ppl.training.phases.predictor import PredictorTraining
from avse_ppl.training.phases.vae import compute_power, load_crops
from avse_ppl.training.recipes import AVPredictorRecipe
from avse_ppl.training.rooms import load_room_responses
from avse_ppl.training.run import SPLITS, Run, TrainingData

_FEATURE_NOISE = 0.5
_WORSE, _WORSE_DB = 3.0, 0.3  # w and u: weights of what lips make worse than the trunk
_OWN = 0.2  # share of them for the speaker's own lips
_TRUNK = "trunk."


def train_av_predictor(
    recipe: AVPredictorRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    trunk: str | Path | None = None,
    fusion: str | Path | None = None,
    visual_encoder: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train an audio-visual predictor and write its weights, config and model card.

    What it hears by, the trunk, is an audio-only predictor that stays as it is; the visual encoder
    is taken as it is, too. What is trained is what joins them.

    Parameters
    ----------
    recipe, data
        What to train, and on what: speech, noise, and the lips of a part of the speech.
    output, name, card, seed, **settings
        As for `avse_ppl.training.train_vae`; the STFT is that of the trunk.
    trunk
        Name or folder of the audio-only predictor; by default the recipe's.
    fusion
        Folder of an audio-visual predictor to go on from, whatever its trunk was.
    visual_encoder
        Name or folder of the visual encoder; by default the recipe's.

    Returns
    -------
    Path
        The folder, readable by ``load_predictor``.

    Raises
    ------
    ValueError
        If there is no speech, no noise or no lips, a cache has no clip in one of the splits, or is
        at another rate than the trunk; if the trunk is no audio-only predictor, or ``fusion`` is of
        another shape; or if the training diverges.
    FileNotFoundError
        If there are no such weights.
    ImportError
        If pyroomacoustics is not installed.
    """
    run = Run(Path(output), seed, **settings)
    if not data.lips:
        raise ValueError(
            "an audio-visual predictor learns from lips: prepare a corpus with video (avse-ppl "
            "prepare CORPUS DIR -o CACHE) and give it with --lips CACHE"
        )
    visual_encoder = visual_encoder or recipe.visual_encoder
    encoder = load_lip_encoder(visual_encoder)[0]
    run.seed_weights()
    network, stft, shape = build_fusion(recipe, trunk or recipe.trunk, fusion, encoder.features)

    speech = data.require_speech(stft.sample_rate_hz)
    noise = data.require_noise(stft.sample_rate_hz)
    rooms = load_room_responses(run.output, stft.sample_rate_hz, seed)
    mouths, scorer = MouthCrops(data.lips), load_reliability()
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    crops = [
        AVPredictorCrops(speech, split, crop, stft, mouths, noise, recipe, rooms, encoder, scorer)
        for split in SPLITS
    ]
    run.fit("fusion", AVPredictorTraining(recipe, stft, network), load_crops(run, recipe, crops))
    folder = save_weights(
        run.output, network, recipe.network, shape, stft, name=name, use="predictor",
        card=run.make_card(card, recipe, unit="see PredictorTraining"),
        visual_encoder=name_lips(visual_encoder),
    )  # fmt: skip
    copy_lips(visual_encoder, run.output)
    return folder


def build_fusion(
    recipe: AVPredictorRecipe, trunk: str | Path, fusion: str | Path | None, features: int
) -> tuple[AttentionFusionNetwork, Stft, dict[str, Any]]:
    """Network with the weights of a trunk, frozen, and those of a fusion, if there is one.

    Parameters
    ----------
    recipe
        Settings of the fusion.
    trunk, fusion
        As in `train_av_predictor`.
    features
        Of the visual encoder.

    Returns
    -------
    tuple
        The network, its front end, and the settings that rebuild it.

    Raises
    ------
    ValueError
        If the trunk is no audio-only predictor, or the parts do not fit each other.
    """
    heard, config = load_network(locate_weights(trunk))
    if not isinstance(heard, TcnNetwork):
        raise ValueError(
            f"the trunk {trunk} holds a {config['network']!r} network; expected an audio-only "
            "predictor, as 'avse-ppl train predictor' leaves it"
        )
    front_end: Any = config["stft"]
    stft, shape = Stft(**front_end), {**config["settings"], **recipe.settings, "visual": features}
    network = AttentionFusionNetwork(stft.freq, **shape)
    if fusion is not None:
        other, theirs = load_network(locate_weights(fusion))
        mine = {k: v for k, v in other.state_dict().items() if not k.startswith(_TRUNK)}
        wanted = [k for k in network.state_dict() if not k.startswith(_TRUNK)]
        shapes = network.state_dict()
        if sorted(mine) != sorted(wanted) or any(mine[k].shape != shapes[k].shape for k in mine):
            raise ValueError(
                f"the fusion {fusion} holds a {theirs['network']!r} network with the settings "
                f"{theirs['settings']}; expected 'attention-fusion' with {shape}"
            )
        network.load_state_dict(mine, strict=False)
    network.trunk.load_state_dict(heard.state_dict())
    freeze_trunk(network)
    return network, stft, shape


def freeze_trunk(network: AttentionFusionNetwork) -> None:
    """Let everything learn but the trunk."""
    rest = {key.split(".")[0] for key, _ in network.named_parameters()} - {_TRUNK[:-1]}
    freeze_except(network, *rest)


class AVPredictorTraining(PredictorTraining):
    r"""`PredictorTraining` with lips, and with what the trunk says without them as a floor.

    .. math:: L = L_{\mathrm{lips}} + w \left[L_{\mathrm{lips}} - L_{\mathrm{trunk}}\right]_+
        + u \left[\mathrm{SI\text{-}SDR}_{\mathrm{trunk}} -
        \mathrm{SI\text{-}SDR}_{\mathrm{lips}}\right]_+

    for each mixture: what lips take away counts more than what they bring, so that where they can
    not be told from those of another, the network stays with what it hears.

    Parameters
    ----------
    recipe, stft, network
        As for `PredictorTraining`; the trunk of the network stays.
    """

    validate_each_epoch: ClassVar[bool] = False  # it takes as long

    def __init__(
        self, recipe: AVPredictorRecipe, stft: Stft, network: AttentionFusionNetwork
    ) -> None:
        super().__init__(recipe, stft, network)
        self.audio_dropout = recipe.audio_dropout

    def losses(self, batch: SeenMixture, **given: Any) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Loss of speech and noise ``(crop, 2, sample)`` and features; at validation, of the trunk.

        ``worse_db`` is how far lips have brought SI-SDR below that of the trunk, 0 where they have
        not; at validation ``gain_db`` and ``harm_db`` are the mean differences from the trunk with
        the speaker's own lips and with disturbed ones.
        """
        visual = align_lips(batch, compute_frame_times(self.stft, batch.waves), self.training)
        heard = self.draw_heard(len(visual), visual.shape[-1]) if self.training else None
        speech, noise = batch.waves.unbind(1)
        mixture = self.stft.forward(speech + noise)
        gain = compute_power(mixture).mean((-2, -1), keepdim=True).sqrt()  # as for inference
        alone, seen = self.network.compare(mixture / gain, visual, heard)
        figures = [self.measure(found, speech, gain) for found in (alone, seen)]
        without, found = figures
        losses = [self.weigh(terms) for terms in figures]
        worse = torch.relu(losses[1] - losses[0])
        change_db = found["si_sdr_db"] - without["si_sdr_db"]
        worse_db = torch.relu(-change_db)
        weight = torch.where(batch.own > 0.0, _OWN, 1.0)
        loss = losses[1] + weight * (_WORSE * worse + _WORSE_DB * worse_db)
        means = {"loss": loss, "sdr_db": found["sdr_db"], "worse_db": worse_db}
        means = {key: value.mean() for key, value in means.items()}
        if self.training:
            return means
        own, count = batch.own, len(batch.own)
        share = torch.stack((own.sum(), count - own.sum())).clamp_min(1.0)
        return {
            **means,
            "gain_db": (own * change_db).sum() / share[0],
            "harm_db": ((1.0 - own) * change_db).sum() / share[1],
            "trunk_sdr_db": without["sdr_db"].mean(),
            "trunk_loss": losses[0].mean(),
        }

    def draw_heard(self, crops: int, time: int) -> Tensor:
        """Frames that the lips are joined to what is heard in, ``(crop, time)``."""
        draws = torch.rand(3, crops, 1, device=self.device)
        place = torch.linspace(0.0, 1.0, time, device=self.device)
        lost = (place > draws[1]) & (place < draws[1] + 0.5 * draws[2])
        return 1.0 - (lost & (draws[0] < self.audio_dropout)).float()


def align_lips(batch: SeenMixture, times: Tensor, noisy: bool = False) -> Tensor:
    """Visual features on the STFT frames after their reliability, ``(crop, 1 + feature, time)``.

    Parameters
    ----------
    batch
        Features ``(crop, video_frame, feature)`` and reliability ``(crop, video_frame)``.
    times
        Centres of the STFT frames, seconds.
    noisy
        Whether noise is added to the features, as at training.
    """
    features = batch.features.transpose(1, 2)
    if noisy:
        features = features + _FEATURE_NOISE * torch.randn_like(features)
    whole = torch.ones_like(batch.reliability)
    row = resample_features(batch.reliability[:, None], whole, times)[:, 1:]
    return torch.cat((row, resample_features(features, whole, times)[:, 1:]), 1)
