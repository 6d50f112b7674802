"""Training of audio-visual and dynamical priors on the latents of an audio-only one."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avse_ppl.data.cache import SpeechCache
from avse_ppl.models.networks.lip_encoder import LipEncoder, downsample_crops, resample_features
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import normalised_input
from avse_ppl.models.weights.io import (
    is_shipped,
    load_lip_encoder,
    load_shared,
    save_lip_encoder,
    save_weights,
)
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import augment_crops
from avse_ppl.training.datasets.av_crops import (
    AVBatch,
    AVMixtureCrops,
    AVSpeechCrops,
    MouthCrops,
    compute_visual_features,
)
from avse_ppl.training.datasets.speech_crops import SpeechCrops
from avse_ppl.training.objective import Objective, draw_normal, freeze_except, normal_nll
from avse_ppl.training.phases.vae import VaeTraining, compute_is_fit, compute_power, load_crops
from avse_ppl.training.recipes import AudioVisualRecipe, DiffusionRecipe
from avse_ppl.training.run import SPLITS, Run, TrainingData

_FEATURE_NOISE = 0.1
_WEIGHT_DECAY = 0.02  # of the visual encoder
_BANDS = 24  # of the envelope that the visual encoder predicts, too


def train_audio_visual(
    recipe: AudioVisualRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    teacher: str | Path | None = None,
    visual_encoder: str | Path | None = None,
    encoder: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train a prior in up to four phases and write its weights, config and model card.

    1. "teacher": the encoder of the audio-only prior that it builds on, on clean speech;
    2. "lips": the visual encoder, if the prior is audio-visual;
    3. "prior": the law of the latents, and a decoder that is new;
    4. "encoder": latents of the speech in mixtures.

    Each may be taken from another training instead: `teacher`, `visual_encoder` and `encoder` are
    folders that one left.

    Parameters
    ----------
    recipe, data
        What to train, and on what.
    output, name, card, stft, seed, **settings
        As for `train_vae`.
    teacher, visual_encoder, encoder
        Folders of weights in place of phases 1, 2 and 4.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If a cache has no clip in one of the splits, or is at another rate than ``stft``; if there
        are no lips for an audio-visual prior, or no noise for an encoder; or if the training
        diverges.
    """
    stft, run = stft or Stft(), Run(Path(output), seed, **settings)
    speech = data.require_speech(stft.sample_rate_hz)
    noise = None if data.noise is None else data.require_noise(stft.sample_rate_hz)
    if recipe.audio_visual and not data.lips:
        raise ValueError(
            "an audio-visual prior learns from lips: prepare a corpus with video (avse-ppl prepare "
            "CORPUS DIR -o CACHE) and give it with --lips CACHE"
        )
    if encoder is None and noise is None:
        raise ValueError(
            "the encoder learns from noisy speech: give TrainingData(noise=...) a cache of noise"
        )
    crop, longer = (round(s * stft.sample_rate_hz) for s in (recipe.crop_s, recipe.encoder_crop_s))

    # Phases "teacher" and "lips", or what another training left of them.
    base = train_teacher(run, recipe, stft, speech, teacher)
    lips = None
    if recipe.audio_visual and visual_encoder is not None:
        lips = load_lip_encoder(visual_encoder)[0]
    elif recipe.audio_visual:
        lips = LipEncoder(features=recipe.settings["visual"])
        mouths = MouthCrops(data.lips)
        crops = [AVSpeechCrops(speech, s, crop, stft, mouths, with_video_only=True) for s in SPLITS]
        run.fit(
            "lips",
            LipsTraining(recipe, stft, lips, base),
            load_crops(run, recipe, crops),
        )
        lips = lips.eval().requires_grad_(False)

    # Phase "prior".
    run.seed_weights()
    network = SequentialVaeNetwork(freq=stft.freq, **recipe.settings)
    load_shared(network, base)
    mouths = compute_visual_features(speech, data.lips, lips, seed)
    crops = [AVSpeechCrops(speech, split, longer, stft, mouths) for split in SPLITS]
    prior = PriorTraining(recipe, stft, network, base)
    if any(p.requires_grad for p in network.parameters()):
        run.fit("prior", prior, load_crops(run, recipe, crops))

    # Phase "encoder".
    load_shared(network, encoder or recipe.base_prior, only="encoder")
    if encoder is None and noise is not None:
        mixtures = [
            AVMixtureCrops(speech, s, longer, stft, mouths, noise, recipe.snr_db) for s in SPLITS
        ]
        training = AVEncoderTraining(recipe, stft, network, base)
        run.fit("encoder", training, load_crops(run, recipe, mixtures))

    folder = save_weights(
        run.output, network, recipe.network, dict(recipe.settings), stft, name=name,
        card=run.make_card(card, recipe),
        visual_encoder=None if lips is None else name_lips(visual_encoder),
        visual_weight=recipe.visual_weight, encoder_width=recipe.encoder_width,
    )  # fmt: skip
    if lips is not None and visual_encoder is None:
        own = run.make_card(card, phases=("lips",))
        save_lip_encoder(run.output / "lips", lips, name="lips", card=own)
    elif lips is not None:
        copy_lips(visual_encoder, run.output)
    return folder


def train_teacher(
    run: Run,
    recipe: AudioVisualRecipe | DiffusionRecipe,
    stft: Stft,
    speech: SpeechCache,
    given: str | Path | None,
) -> Any:
    """Train the teacher, or load one: the frozen network whose latents others learn from.

    Parameters
    ----------
    run, recipe, stft
        The training that it is the first phase of.
    speech
        Cached speech.
    given
        Folder of a teacher, or None to train one into ``teacher/`` of the output.
    """
    settings = {"latent": recipe.settings["latent"]}
    run.seed_weights()  # of layers that the base prior lacks
    network = SequentialVaeNetwork(freq=stft.freq, **settings)
    load_shared(network, given or recipe.base_prior)
    if given is None:
        crop = round(recipe.crop_s * stft.sample_rate_hz)
        crops = [SpeechCrops(speech, split, crop, stft) for split in SPLITS]
        training = TeacherTraining(recipe, stft, network)
        run.fit("teacher", training, load_crops(run, recipe, crops))
        folder = run.output / "teacher"
        save_weights(folder, network, "dynamic", settings, stft, name="teacher", card={})
    return copy.deepcopy(network).requires_grad_(False)


def name_lips(visual_encoder: str | Path | None) -> str:
    """Name of a visual encoder in a config: that of shipped weights, or the folder beside."""
    return str(visual_encoder) if is_shipped(visual_encoder) else "lips"


def copy_lips(visual_encoder: str | Path | None, output: Path) -> None:
    """Copy a visual encoder that is not shipped beside the weights that need it."""
    if visual_encoder is not None and not is_shipped(visual_encoder):
        shutil.copytree(visual_encoder, output / "lips", dirs_exist_ok=True)


class TeacherTraining(VaeTraining):
    """Phase "teacher": `VaeTraining` of an encoder on clean speech, its decoder as it is."""

    def __init__(
        self, recipe: AudioVisualRecipe | DiffusionRecipe, stft: Stft, network: Any
    ) -> None:
        super().__init__(recipe, stft, network)
        self.epochs = recipe.teacher_epochs
        freeze_except(network, "encoder")


class LipsTraining(Objective):
    r"""Phase "lips": the visual encoder predicts latents and energies of speech from the lips.

    .. math:: -E_{q(z|s)} \log N(z_t; \mu(v_t), \sigma^2(v_t))
        + \tfrac12 \sum_b (\ell_{bt} - \hat \ell_b(v_t))^2

    with z the teacher's latents and :math:`\ell_{bt}` the log energy of speech in a few bands, in
    units of 5 dB. The last layer of both predictions is not part of the network.
    """

    def __init__(
        self, recipe: AudioVisualRecipe, stft: Stft, network: LipEncoder, teacher: Any
    ) -> None:
        super().__init__(network, recipe.visual_encoder_epochs, recipe.visual_encoder_rate)
        self.recipe, self.stft = recipe, stft
        self.teacher = teacher.requires_grad_(False)
        outputs = 2 * teacher.latent + _BANDS
        self.prediction = nn.Conv1d(network.features + 1, outputs, 5, padding=2)
        edges = torch.linspace(0.0, 1.0, _BANDS + 1) ** 1.7 * stft.freq
        bins = torch.arange(stft.freq)[None]
        bands = (bins >= edges[:-1, None].floor()) & (bins < edges[1:, None].ceil())
        self.bands: Tensor
        self.register_buffer("bands", bands.float() / bands.sum(1, keepdim=True))

    def configure_optimizers(self) -> Any:
        """AdamW along a cosine, after a rise over the first steps."""
        trained = self.list_trained()
        return self.anneal_each_step(
            torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=_WEIGHT_DECAY)
        )

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and mouth crops ``(crop, video_frame, 88, 88)``."""
        power = compute_power(self.stft.forward(batch.waves))
        with torch.no_grad():
            z = draw_normal(*self.teacher.infer(power))
            envelope = torch.log(self.bands @ power + 1e-4) / 1.15
        images = downsample_crops(batch.lips)
        if self.training:
            seed = int(torch.randint(2**31, ()))
            images = augment_crops(images, torch.Generator().manual_seed(seed))
        features = self.network.encode_downsampled(images)
        visual = resample_features(
            features, batch.present, compute_frame_times(self.stft, batch.waves)
        )
        predicted = self.prediction(visual)
        mean, logvar = predicted[:, : 2 * z.shape[1]].chunk(2, 1)
        counted = visual[:, 0]
        nll = (counted * normal_nll(z, mean, logvar).sum(1)).sum() / counted.sum().clamp(min=1)
        error = (envelope - predicted[:, 2 * z.shape[1] :]).square().sum(1)
        fit = 0.5 * (counted * error).sum() / counted.sum().clamp(min=1)
        return {"loss": nll + fit, "nll": nll, "envelope": fit}


class PriorTraining(Objective):
    r"""Phase "prior": the law of the latents given their past and the lips.

    .. math:: -E_{q(z|s)} \sum_t \log p(z_t | z_{1:t-1}, v)

    which is what the evidence lower bound asks of a prior, the encoder being given. Each crop comes
    with the lips, or, by the recipe's ``video_dropout``, without. A decoder that is new or takes
    the lips is fitted to the same latents, by the Itakura-Saito fit of `VaeTraining`.
    """

    def __init__(
        self, recipe: AudioVisualRecipe, stft: Stft, network: SequentialVaeNetwork, teacher: Any
    ) -> None:
        super().__init__(network, recipe.prior_epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft
        self.teacher = teacher.requires_grad_(False)
        self.with_decoder = network.recurrent or network.decoder_sees
        freeze_except(network, "prior", *(("decoder",) if self.with_decoder else ()))

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, video_frame, features)``."""
        power = compute_power(self.stft.forward(batch.waves))
        with torch.no_grad():
            z = draw_normal(*self.teacher.infer(power))
        visual = align_visual_features(batch, self)
        mean, logvar = self.network.law(z, visual)
        nll = normal_nll(z, mean, logvar).sum(1).mean()
        if not self.with_decoder:
            return {"loss": nll, "nll": nll}
        log_power = self.network.decode(z, visual)
        fit = compute_is_fit(power, log_power)
        return {"loss": nll + fit, "nll": nll, "fit": fit}


class AVEncoderTraining(Objective):
    r"""Phase "encoder": neural posterior estimation from the mixture and the lips.

    .. math:: -E_{p(s, x, v)} E_{q_0(z | s)} \log q(z | x, v)

    as in `EncoderTraining`, in the latents themselves, so that one encoder serves all priors of
    the same decoder. Of an audio-visual network, the encoder that takes the lips is trained: by
    lips alone it was found to rely on those of its own speakers, so it learns the audio, too.
    """

    def __init__(
        self, recipe: AudioVisualRecipe, stft: Stft, network: SequentialVaeNetwork, teacher: Any
    ) -> None:
        super().__init__(network, recipe.encoder_epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft
        self.teacher = teacher.requires_grad_(False)
        if network.visual:
            network.encoder_looking.copy_encoder(network)
        freeze_except(network, "encoder_looking" if network.visual else "encoder")

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech and noise ``(crop, 2, sample)`` and features."""
        speech, noise = self.stft.forward(batch.waves).unbind(1)
        mixture = compute_power(speech + noise)
        gain = mixture.mean((-2, -1), keepdim=True)  # as a mixture is normalised for inference
        with torch.no_grad():
            z = draw_normal(*self.teacher.infer(compute_power(speech) / gain))
        visual, power = align_visual_features(batch, self), mixture / gain
        if visual is None:
            mean, logvar = self.network.infer(power)
        else:
            mean, logvar = self.network.encoder_looking(normalised_input(power), visual)
            logvar = self.network.clamped(logvar)
        return {"loss": normal_nll(z, mean, logvar).sum(1).mean()}


def align_visual_features(batch: AVBatch, objective: Any) -> Tensor | None:
    """Bring visual features to the STFT frames, ``(crop, 1 + features, time)``, with dropout.

    At training, features are noisy, and, by the recipe's ``video_dropout``, a crop loses its video
    as a whole, or, as often, for a stretch of it, or is doubted: its gate is some g in [0, 1], and
    its lips are its own with probability g only and otherwise somebody else's. So a gate in between
    is the probability that it states.

    Parameters
    ----------
    batch
        Waves, features and gates.
    objective
        Has the ``network``, ``recipe`` and ``stft``, and the training mode.
    """
    network, recipe = objective.network, objective.recipe
    if not network.visual:
        return None
    features, present = batch.lips.transpose(1, 2), batch.present
    if objective.training:
        features = features + _FEATURE_NOISE * torch.randn_like(features)
        share = recipe.video_dropout
        draws = torch.rand(5, len(present), 1, device=present.device)
        place = torch.linspace(0.0, 1.0, present.shape[1], device=present.device)
        stretch = (place > draws[1]) & (place < draws[1] + 0.7 * draws[2])
        lost = (draws[0] < share) | ((draws[0] < 2 * share) & stretch)
        doubted, gate = draws[0] > 1.0 - share, draws[3]
        wrong = doubted & (draws[4] > gate)
        features = torch.where(wrong[..., None], features.roll(1, 0), features)
        present = present * torch.where(wrong, present.roll(1, 0), torch.ones_like(present))
        present = present * ~lost * torch.where(doubted, gate, torch.ones_like(gate))
    return resample_features(features, present, compute_frame_times(objective.stft, batch.waves))


def compute_frame_times(stft: Stft, waves: Tensor) -> Tensor:
    """Centres of the STFT frames of waves ``(..., sample)``, seconds."""
    frames = stft.count_frames(waves.shape[-1])
    return torch.arange(frames, device=waves.device) * (stft.hop / stft.sample_rate_hz)
