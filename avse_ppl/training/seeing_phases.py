"""What each phase of training an audio-visual or dynamical prior lowers."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.lip_encoder import LipEncoder, downsample_crops, on_frames
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import normalised_input
from avse_ppl.signal.stft import Stft
from avse_ppl.training.lips_augment import vary_crops
from avse_ppl.training.phases import VaeTraining, power_of
from avse_ppl.training.recipes import AudioVisualRecipe, Recipe
from avse_ppl.training.seeing_data import AVBatch

_FEATURE_NOISE = 0.1
_DECAY = 0.02  # of the visual encoder's weights
_RISE = 100  # steps over which the visual encoder's rate rises
_BANDS = 24  # of the envelope that lips are asked to guess, too


class TeacherTraining(VaeTraining):
    """Phase "teacher": the encoder of an audio-only prior, on clean speech, its decoder as it is.

    The loss is that of `VaeTraining`. Its latents are what the other phases learn from.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any) -> None:
        """Freeze all but the encoder."""
        super().__init__(recipe, stft, network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("encoder"))


class LipsTraining(VaeTraining):
    r"""Phase "lips": the visual encoder guesses from the lips what was said.

    .. math:: -E_{q(z|s)} \log N(z_t; \mu(v_t), \sigma^2(v_t))
        + \tfrac12 \sum_b (\ell_{bt} - \hat \ell_b(v_t))^2

    with z the teacher's latents and :math:`\ell_{bt}` the log energy of speech in a few bands, in
    units of 5 dB. The last layer of both guesses is not part of the network.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: LipEncoder, teacher: Any) -> None:
        """Build the layer that guesses."""
        super().__init__(recipe, stft, network)
        self.teacher = teacher.requires_grad_(False)
        outputs = 2 * teacher.latent + _BANDS
        self.guess = nn.Conv1d(network.features + 1, outputs, 5, padding=2)
        edges = torch.linspace(0.0, 1.0, _BANDS + 1) ** 1.7 * stft.freq
        bins = torch.arange(stft.freq)[None]
        bands = (bins >= edges[:-1, None].floor()) & (bins < edges[1:, None].ceil())
        self.bands: Tensor
        self.register_buffer("bands", bands.float() / bands.sum(1, keepdim=True))

    def configure_optimizers(self) -> Any:
        """Adam along a cosine, after a rise over the first steps."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=self.recipe.learning_rate, weight_decay=_DECAY)
        steps = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
            return fall * min(1.0, (step + 1) / _RISE)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and mouth crops ``(crop, picture, 88, 88)``."""
        power = power_of(self.stft.forward(batch.waves))
        with torch.no_grad():
            z = _draw(*self.teacher.infer(power))
            envelope = torch.log(self.bands @ power + 1e-4) / 1.15
        images = downsample_crops(batch.lips)
        if self.training:
            seed = int(torch.randint(2**31, ()))
            images = vary_crops(images, torch.Generator().manual_seed(seed))
        features = self.network.from_halved(images)
        seen = on_frames(features, batch.present, frame_times(self.stft, power))
        guess = self.guess(seen)
        mean, logvar = guess[:, : 2 * z.shape[1]].chunk(2, 1)
        counted = seen[:, 0]
        nll = (counted * _normal_nll(z, mean, logvar).sum(1)).sum() / counted.sum().clamp(min=1)
        error = (envelope - guess[:, 2 * z.shape[1] :]).square().sum(1)
        fit = 0.5 * (counted * error).sum() / counted.sum().clamp(min=1)
        return {"loss": nll + fit, "nll": nll, "envelope": fit}


class PriorTraining(VaeTraining):
    r"""Phase "prior": the law of the latents given their past and the lips.

    .. math:: -E_{q(z|s)} \sum_t \log p(z_t | z_{1:t-1}, v)

    which is what the evidence lower bound asks of a prior, the encoder being given. Each crop is
    seen with the lips, or, by the recipe's ``video_dropout``, without. A decoder that is new or
    sees the lips is fitted to the same latents, by the Itakura-Saito fit of `VaeTraining`.
    """

    def __init__(
        self, recipe: Recipe, stft: Stft, network: SequentialVaeNetwork, teacher: Any
    ) -> None:
        """Freeze what the teacher has already."""
        super().__init__(recipe, stft, network)
        self.teacher = teacher.requires_grad_(False)
        self.decoding = network.recurrent or network.decoder_sees
        for name, parameter in network.named_parameters():
            mine = name.startswith("prior") or (self.decoding and name.startswith("decoder"))
            parameter.requires_grad_(mine)

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, picture, features)``."""
        power = power_of(self.stft.forward(batch.waves))
        with torch.no_grad():
            z = _draw(*self.teacher.infer(power))
        visual = self.visual(batch, power)
        mean, logvar = self.network.law(z, visual)
        nll = _normal_nll(z, mean, logvar).sum(1).mean()
        if not self.decoding:
            return {"loss": nll, "nll": nll}
        log_power = self.network.decode(z, visual)
        fit = (log_power + power * torch.exp(-log_power)).sum(-2).mean()
        return {"loss": nll + fit, "nll": nll, "fit": fit}

    def visual(self, batch: AVBatch, power: Tensor) -> Tensor | None:
        """Features on the frames of speech; at training, noisy and some of them left out."""
        return visual_of(batch, frame_times(self.stft, power), self)


class AVEncoderTraining(VaeTraining):
    r"""Phase "encoder": latents of the speech in a mixture, from the mixture and the lips.

    .. math:: -E_{p(s, x, v)} E_{q_0(z | s)} \log q(z | x, v)

    as in `EncoderTraining`, in the latents themselves, so that one encoder serves all priors of
    the same decoder.
    """

    def __init__(
        self, recipe: Recipe, stft: Stft, network: SequentialVaeNetwork, teacher: Any
    ) -> None:
        """Freeze all but the encoder: of a network that sees, the one that looks."""
        super().__init__(recipe, stft, network)
        self.teacher = teacher.requires_grad_(False)
        if network.visual:
            network.encoder_looking.follow(network)
        mine = "encoder_looking" if network.visual else "encoder"
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(mine))

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech and noise ``(crop, 2, sample)`` and features."""
        speech, noise = self.stft.forward(batch.waves).unbind(1)
        mixed = power_of(speech + noise)
        level = mixed.mean((-2, -1), keepdim=True)  # as a mixture is normalised for inference
        with torch.no_grad():
            z = _draw(*self.teacher.infer(power_of(speech) / level))
        visual = visual_of(batch, frame_times(self.stft, mixed), self)
        mean, logvar = self._guessed(mixed / level, visual)
        return {"loss": _normal_nll(z, mean, logvar).sum(1).mean()}

    def _guessed(self, power: Tensor, visual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Guess by the encoder that is trained: one that looks learns to hear, too.

        Trained only where lips are seen, it was found to rely on those of its own speakers.
        """
        network = self.network
        if visual is None:
            return network.infer(power)
        mean, logvar = network.encoder_looking(normalised_input(power), visual)
        return mean, network.clamped(logvar)


def visual_of(batch: AVBatch, time_s: Tensor, module: VaeTraining) -> Tensor | None:
    """Features on frames ``(crop, 1 + features, time)``; noisy, and some left out, at training.

    By the recipe's ``video_dropout``, a crop is left out as a whole, or, as often, for a stretch of
    it, or doubted: its gate is some g in [0, 1], and its lips are its own with probability g only
    and otherwise somebody else's. So a gate in between means what it says.
    """
    network, recipe = module.network, cast(AudioVisualRecipe, module.recipe)
    if not network.visual:
        return None
    features, present = batch.lips.transpose(1, 2), batch.present
    if module.training:
        features = features + _FEATURE_NOISE * torch.randn_like(features)
        share = recipe.video_dropout
        draws = torch.rand(5, len(present), 1, device=present.device)
        place = torch.linspace(0.0, 1.0, present.shape[1], device=present.device)
        stretch = (place > draws[1]) & (place < draws[1] + 0.7 * draws[2])
        lost = (draws[0] < share) | ((draws[0] < 2 * share) & stretch)
        doubted, trust = draws[0] > 1.0 - share, draws[3]
        wrong = doubted & (draws[4] > trust)
        features = torch.where(wrong[..., None], features.roll(1, 0), features)
        present = present * torch.where(wrong, present.roll(1, 0), torch.ones_like(present))
        present = present * ~lost * torch.where(doubted, trust, torch.ones_like(trust))
    return on_frames(features, present, time_s)


def frame_times(stft: Stft, power: Tensor) -> Tensor:
    """Centres of the frames of ``(..., time)``, seconds."""
    return torch.arange(power.shape[-1], device=power.device) * (stft.hop / stft.sample_rate_hz)


def clean_teacher(network: Any) -> Any:
    """Copy a teacher, frozen; it has no layer that is another at training."""
    return copy.deepcopy(network).requires_grad_(False)


def _draw(mean: Tensor, logvar: Tensor) -> Tensor:
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


def _normal_nll(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    terms = logvar + (z - mean).square() * torch.exp(-logvar)
    return 0.5 * (terms + math.log(2 * math.pi))
