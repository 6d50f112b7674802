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
from avse_ppl.models.weights.io import load_lip_encoder, load_network, locate_weights, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.av_crops import AVBatch, compute_visual_features
from avse_ppl.training.datasets.av_predictor_crops import AVPredictorCrops
from avse_ppl.training.objective import freeze_except
from avse_ppl.training.phases.audio_visual import compute_frame_times, copy_lips, name_lips
from avse_ppl.training.phases.predictor import ROOMS, PredictorTraining
from avse_ppl.training.phases.vae import load_crops
from avse_ppl.training.recipes import AVPredictorRecipe
from avse_ppl.training.rooms import load_room_responses
from avse_ppl.training.run import SPLITS, Run, TrainingData

_FEATURE_NOISE = 0.3
_RELIABILITY = (0.55, 1.0)  # of lips that are not doubted
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
    rooms = load_room_responses(
        run.output / "checkpoints" / "rooms.npy", ROOMS, stft.sample_rate_hz, seed
    )
    mouths = compute_visual_features(speech, data.lips, encoder, seed)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    crops = [
        AVPredictorCrops(speech, split, crop, stft, mouths, noise, recipe, rooms)
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
    """`PredictorTraining` with lips, some of them lost, doubted, or another person's.

    Parameters
    ----------
    recipe, stft, network
        As for `PredictorTraining`; the trunk of the network stays.
    """

    validate_each_epoch: ClassVar[bool] = False  # it hears all twice, and takes as long

    def __init__(
        self, recipe: AVPredictorRecipe, stft: Stft, network: AttentionFusionNetwork
    ) -> None:
        super().__init__(recipe, stft, network)
        self.video_dropout, self.audio_dropout = recipe.video_dropout, recipe.audio_dropout

    def losses(self, batch: AVBatch, **given: Any) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Loss of speech and noise ``(crop, 2, sample)`` and features; at validation, of the trunk.

        ``trunk_sdr_db`` is what `sdr_db` would be without lips.
        """
        times = compute_frame_times(self.stft, batch.waves)
        visual = draw_visual(batch, times, self.video_dropout if self.training else None)
        heard = self.draw_heard(batch, len(times)) if self.training else None
        found = super().losses(batch.waves, visual=visual, heard=heard)
        if self.training:
            return found
        alone = super().losses(batch.waves)
        return {**found, "trunk_sdr_db": alone["sdr_db"], "trunk_loss": alone["loss"]}

    def draw_heard(self, batch: AVBatch, time: int) -> Tensor:
        """Frames that the lips are joined to what is heard in, ``(crop, time)``."""
        device = batch.waves.device
        draws = torch.rand(3, len(batch.waves), 1, device=device)
        place = torch.linspace(0.0, 1.0, time, device=device)
        lost = (place > draws[1]) & (place < draws[1] + 0.5 * draws[2])
        return 1.0 - (lost & (draws[0] < self.audio_dropout)).float()


def draw_visual(batch: AVBatch, times: Tensor, dropout: float | None) -> Tensor:
    """Visual features on the STFT frames with their reliability, ``(crop, 1 + feature, time)``.

    At training, features are noisy, and reliability is what it states: lips that are doubted have
    some r in [0, 1], and are the speaker's own with probability r only, otherwise those of
    another, or late or early. Others have an r between .55 and 1, and a share of them is lost for
    a stretch, for which r is 0.

    Parameters
    ----------
    batch
        Features ``(crop, video_frame, feature)`` and the frames that show a face.
    times
        Centres of the STFT frames, seconds.
    dropout
        Share of the crops that lose a stretch, and share that is doubted. None: the lips as they
        are, with a reliability of 1.
    """
    features, present = batch.lips.transpose(1, 2), batch.present
    gate = present
    if dropout is not None:
        features = features + _FEATURE_NOISE * torch.randn_like(features)
        draws = torch.rand(6, len(present), 1, device=present.device)
        low, high = _RELIABILITY
        reliability = low + (high - low) * draws[3]
        # Doubted: another's lips, or one's own at another time.
        doubted = draws[0] > 1.0 - dropout
        reliability = torch.where(doubted, draws[3], reliability)
        wrong = doubted & (draws[4] > reliability)
        late = wrong & (draws[5] < 0.5)
        shift = max(1, features.shape[-1] // 4)
        others, shifted = features.roll(1, 0), features.roll(shift, -1)
        features = torch.where(wrong[..., None], others, features)
        features = torch.where(late[..., None], shifted, features)
        shown = torch.where(wrong, present.roll(1, 0), present)
        present = torch.where(late, batch.present.roll(shift, -1), shown)
        # Lost for a stretch.
        place = torch.linspace(0.0, 1.0, present.shape[1], device=present.device)
        stretch = (place > draws[1]) & (place < draws[1] + 0.7 * draws[2])
        gate = present * reliability * ~((draws[0] < dropout) & stretch)
    row = resample_features(gate[:, None], torch.ones_like(gate), times)[:, 1:]
    values = resample_features(features, torch.ones_like(gate), times)[:, 1:]
    return torch.cat((row, values), 1)
