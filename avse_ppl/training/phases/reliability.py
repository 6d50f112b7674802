"""Training of the reliability network: audio-visual synchrony, quality of lips, calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, binary_cross_entropy_with_logits, cross_entropy, pad

from avse_ppl.models.networks.av_sync import (
    BANDS,
    MOST_LAG,
    NEAR_LAG,
    STEPS,
    average_window,
    find_interior,
    is_comparable,
    score_lags,
)
from avse_ppl.models.networks.reliability import (
    FINE,
    OUT_OF_SYNC,
    PRIOR_OUT_OF_SYNC,
    ReliabilityNetwork,
)
from avse_ppl.models.weights.io import init_from_lip_encoder, save_reliability
from avse_ppl.training.augment import augment_crops
from avse_ppl.training.datasets.loaders import Loaders, make_loader
from avse_ppl.training.datasets.reliability_clips import (
    AVClips,
    ClipBatches,
    ReliabilityBatch,
    collate,
)
from avse_ppl.training.objective import Objective, freeze_except
from avse_ppl.training.recipes import ReliabilityRecipe
from avse_ppl.training.run import SPLITS, Run, TrainingData
from avse_ppl.video.quality.features import SOUND_HZ

_WINDOWS = (9, 21, 75)
_ENVELOPE_WEIGHT = 0.5
_AUGMENTED = 0.5  # share of the batches whose crops are augmented
_CAUSE_WEIGHT = 0.4
_FEWEST_FRAMES = 6  # to be compared
_RIDGE = 1e-2
_SYNC_CORRUPTIONS = ("shift", "other-speaker")


def train_reliability(
    recipe: ReliabilityRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    visual_encoder: str | Path | None = None,
    network_settings: Mapping[str, int] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train the reliability network and write its weights, config and model card.

    1. "sync": audio-visual synchrony, which sound belongs to which lips, on noisy mixtures;
    2. "quality": score and cause of clips that are corrupted in the trained ways, without sound;
    3. calibration on held-out speakers: of the score, and of how far the sound lowers it.

    Parameters
    ----------
    recipe, data
        What to train, and on what: speech, the lips of its speakers, and noise.
    output, name, card, seed, **settings
        As for `train_vae`.
    visual_encoder
        Name or folder of the visual encoder whose weights the lip tower takes, all but the last
        layer as they are.
    network_settings
        Sizes of the network; None for the defaults.

    Returns
    -------
    Path
        The folder, readable by ``load_reliability``.

    Raises
    ------
    ValueError
        If a split has no clip with lips, a cache is missing or not at 16 kHz, or the training
        diverges.
    """
    run = Run(Path(output), seed, **settings)
    speech, noise = data.require_speech(SOUND_HZ), data.require_noise(SOUND_HZ)

    def load_clips(batch: int, **options: Any) -> Loaders:
        loaders = []
        for split, count in zip(SPLITS, (recipe.clips, recipe.dev_clips), strict=True):
            clips = AVClips(speech, data.lips, noise, split, recipe.snr_db, **options)
            learned = split == "train"
            batches = ClipBatches(clips, batch, count, seed, shuffle=learned)
            loaders.append(make_loader(clips, batches, run.workers if learned else 0, collate))
        return Loaders(*loaders)

    run.seed_weights()
    network = ReliabilityNetwork(**(network_settings or {}))
    taken = [] if visual_encoder is None else init_from_lip_encoder(network, visual_encoder)
    # A tower keeps what it starts from if that is whole: the first layer of some encoders is
    # another.
    sync = AVSyncTraining(recipe, network, frozen="motion.weight" in taken)
    run.fit("sync", sync, load_clips(recipe.sync_batch, corrupted=False))
    silent = load_clips(recipe.quality_batch, with_audio=False)
    run.fit("quality", QualityTraining(recipe, network), silent)
    network = network.cpu().eval().requires_grad_(False)
    temperature, offset = calibrate_score(network, silent.dev)
    run.metrics["calibration"] = {"temperature": temperature, "offset": offset}
    out_of_sync = load_clips(recipe.quality_batch, names=_SYNC_CORRUPTIONS)
    run.metrics["sync calibration"] = calibrate_sync(network, out_of_sync.dev)
    return save_reliability(
        run.output, network, name=name, card=run.make_card(card, recipe, "held-out speakers")
    )


class ReliabilityObjective(Objective):
    """Base of both objectives: AdamW, its rate along a cosine to 0; validated at the end."""

    gradient_clip = 2.0
    validate_each_epoch = False
    seed_each_step = False

    def configure_optimizers(self) -> Any:
        """AdamW; its rate falls along a cosine, epoch by epoch, nearly to 0."""
        optimiser = torch.optim.AdamW(self.list_trained(), lr=self.learning_rate, weight_decay=0.02)
        epochs = max(self.epochs, 1)

        def factor(epoch: int) -> float:
            return 0.5 * (1.0 + math.cos(math.pi * min(epoch / epochs, 0.97)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": schedule}


class AVSyncTraining(ReliabilityObjective):
    r"""Phase "sync": contrastive audio-visual synchrony, in noise.

    .. math:: -\log \frac{\sum_{|\tau| \le 2} e^{\bar S_{t\tau}}}{\sum_\tau e^{\bar S_{t\tau}}}
        -\log \frac{e^{\bar S_{t}^{bb}}}{\sum_c e^{\bar S_{t}^{bc}}}
        + \tfrac12 |\ell_t - B v_t|^2 + \tfrac12 |\ell_t - B a_t|^2

    The first term classifies the lag among all of a clip, over three windows; the second the clip
    among those of a batch; the others predict log-mel energies of the clean speech from the lips,
    and from the mixture, through one matrix B, so that both towers share their features from the
    start.

    Parameters
    ----------
    recipe
        How long, at which rate.
    network
        Its part `agreement` is trained.
    frozen
        Whether the lip tower keeps what it started from, but for its last layer, which takes half
        the time.
    """

    def __init__(
        self, recipe: ReliabilityRecipe, network: ReliabilityNetwork, frozen: bool = False
    ) -> None:
        super().__init__(network, recipe.sync_epochs, recipe.sync_rate)
        self.frozen = frozen
        freeze_except(network, "agreement")
        if frozen:
            network.agreement.lips.requires_grad_(False)
            network.agreement.lips.out.requires_grad_(True)
        # Of the energies; not part of the network.
        self.prediction = nn.Conv1d(network.settings["features"], STEPS * BANDS, 1)

    def train(self, mode: bool = True) -> AVSyncTraining:
        """Keep a frozen tower in evaluation mode."""
        super().train(mode)
        self.network.agreement.lips.train(mode and not self.frozen)
        return self

    def losses(self, batch: ReliabilityBatch) -> dict[str, Tensor]:
        """Loss of a batch of clips as they were tracked, or augmented."""
        agreement = self.network.agreement
        images = batch.images
        if self.training and float(torch.rand(())) < _AUGMENTED:
            images = augment_crops(
                images, torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            )
        found = batch.columns[..., 0]
        video, audio, present = agreement.encode(images, batch.levels, found)
        audible = find_interior(torch.ones_like(found[:1]))[0]
        scale = agreement.scale.exp().clamp(max=60.0)

        # The lag within a clip, over three windows.
        scores, valid = score_lags(video, audio, present, scale, audible)
        lag, right = torch.zeros(()), torch.zeros(())
        for window in _WINDOWS:
            mean, count = average_window(scores, valid, window)
            logits = mean.masked_fill(count == 0, -1e4)
            near = slice(MOST_LAG - NEAR_LAG, MOST_LAG + NEAR_LAG + 1)
            loss = logits.logsumexp(-1) - logits[..., near].logsumexp(-1)
            there = is_comparable(count).float()
            lag = lag + (loss * there).sum() / there.sum().clamp(min=1) / len(_WINDOWS)
            hit = ((logits.argmax(-1) - MOST_LAG).abs() <= NEAR_LAG).float()
            right = (hit * there).sum() / there.sum().clamp(min=1)

        # The clip among those of the batch, over 0.84 s.
        def sum_over_window(values: Tensor) -> Tensor:
            return avg_pool1d(pad(values, (10, 10)), 21, 1) * 21

        counted = present * audible
        product = scale * torch.einsum("bft,cft->bct", video, audio) * counted[:, None]
        count = sum_over_window(counted[:, None])[:, 0]
        mean = sum_over_window(product) / count.clamp(min=1.0)[:, None]
        target = torch.arange(len(video), device=video.device)[:, None].expand(-1, mean.shape[-1])
        clip = cross_entropy(mean, target, reduction="none") * (count >= _FEWEST_FRAMES)
        clip = clip.sum() / (count >= _FEWEST_FRAMES).sum().clamp(min=1)

        # The energies of the clean speech.
        envelope = self.compute_envelope_error(video, batch.clean, present)
        denoised = self.compute_envelope_error(audio, batch.clean, audible.expand_as(found))
        loss = lag + clip + _ENVELOPE_WEIGHT * (envelope + denoised)
        return {
            "loss": loss, "lag": lag, "clip": clip, "envelope": envelope,
            "denoised": denoised, "right": right,
        }  # fmt: skip

    def compute_envelope_error(self, features: Tensor, clean: Tensor, counted: Tensor) -> Tensor:
        """Mean squared error of the predicted energies, over frames that count."""
        predicted = self.prediction(features * features.shape[1] ** 0.5)
        error = (predicted - clean.transpose(1, 2)).square().mean(1)
        return (error * counted).sum() / counted.sum().clamp(min=1)


class QualityTraining(ReliabilityObjective):
    r"""Phase "quality": score and cause of corrupted clips, from the video alone.

    .. math:: -r_t \log \hat r_t - (1 - r_t) \log(1 - \hat r_t) - 0.4 \log \hat p_t(c_t)

    over frames with a face; the towers of audio-visual synchrony stay as they are.

    Parameters
    ----------
    recipe, network
        As for `AVSyncTraining`.
    """

    def __init__(self, recipe: ReliabilityRecipe, network: ReliabilityNetwork) -> None:
        super().__init__(network, recipe.quality_epochs, recipe.quality_rate)
        network.requires_grad_(True)
        network.agreement.requires_grad_(False)

    def train(self, mode: bool = True) -> QualityTraining:
        """Keep the towers in evaluation mode."""
        super().train(mode)
        self.network.agreement.eval()
        return self

    def losses(self, batch: ReliabilityBatch) -> dict[str, Tensor]:
        """Loss of a batch of corrupted clips."""
        score, cause = self.network.predict_from_video(batch.images, batch.columns)
        found = batch.columns[..., 0]
        fit = binary_cross_entropy_with_logits(score, batch.reliability, reduction="none")
        fit = (fit * found).sum() / found.sum().clamp(min=1)
        classified = cross_entropy(cause, batch.cause)
        error = (score.sigmoid() - batch.reliability).abs().mean()
        loss = fit + _CAUSE_WEIGHT * classified
        return {"loss": loss, "score": fit, "cause": classified, "error": error}


def calibrate_score(
    network: ReliabilityNetwork, batches: Iterable[ReliabilityBatch]
) -> tuple[float, float]:
    """Platt scaling: fit temperature and offset of the score to held-out clips; returns both.

    Raises
    ------
    ValueError
        If no frame has a face.
    """
    logits, truths = [], []
    network.calibration.copy_(torch.tensor([1.0, 0.0]))
    for batch in batches:
        with torch.no_grad():
            score, _ = network.predict_from_video(batch.images, batch.columns)
        found = batch.columns[..., 0] > 0.5
        logits.append(score[found])
        truths.append(batch.reliability[found])
    logit, truth = torch.cat(logits), torch.cat(truths)
    if len(logit) == 0:
        raise ValueError("no frame to calibrate on has a face; give lips with faces in them")
    fitted = minimise_by_lbfgs(
        torch.tensor([1.0, 0.0]),
        lambda at: binary_cross_entropy_with_logits(at[0] * logit + at[1], truth),
    )
    network.calibration.copy_(fitted)
    temperature, offset = fitted.tolist()
    return temperature, offset


def calibrate_sync(
    network: ReliabilityNetwork, batches: Iterable[ReliabilityBatch]
) -> dict[str, float]:
    """Logistic regression of out-of-sync clips, on held-out speakers whose lips look fine.

    Both classes count alike; the offset is then moved to the log odds of `PRIOR_OUT_OF_SYNC`.
    Returns the number of frames, and the share of them that is classified right.
    """
    rows, truths = [], []
    for batch in batches:
        with torch.no_grad():
            features = network.agreement(batch.images, batch.levels, batch.columns[..., 0])
        fine = (batch.cause <= max(FINE)) | (batch.cause == OUT_OF_SYNC)
        used = fine & (batch.columns[..., 0] > 0.5) & (features[:, 2::3].amax(1) > 0.5)
        rows.append(features.transpose(1, 2)[used])
        truths.append((batch.cause == OUT_OF_SYNC)[used])
    row, apart = torch.cat(rows), torch.cat(truths).float()
    share = apart.mean() if len(apart) else torch.zeros(())
    if not 0.0 < float(share) < 1.0:
        return {"frames": float(len(apart))}
    weight = torch.where(apart > 0.5, 0.5 / share, 0.5 / (1.0 - share))

    def loss(at: Tensor) -> Tensor:
        fit = binary_cross_entropy_with_logits(at[0] + row @ at[1:], apart, weight)
        return fit + _RIDGE * at[1:].square().sum()

    fitted = minimise_by_lbfgs(torch.zeros(1 + row.shape[1]), loss)
    logit = fitted[0] + row @ fitted[1:]
    network.apart.copy_(fitted)
    network.apart[0] += math.log(PRIOR_OUT_OF_SYNC / (1.0 - PRIOR_OUT_OF_SYNC))
    right = ((logit > 0.0) == (apart > 0.5)).float() * weight
    return {"frames": float(len(apart)), "right": float(right.sum() / weight.sum())}


def minimise_by_lbfgs(init: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Minimise a loss by L-BFGS."""
    fitted = init.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([fitted], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> float:
        optimiser.zero_grad()
        value = loss(fitted)
        value.backward()
        return float(value.detach())

    optimiser.step(cast("Any", step))
    return fitted.detach()
