"""What the two phases of training the reliability network lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, binary_cross_entropy_with_logits, cross_entropy, pad

from avse_ppl.models.networks.av_sync import (
    BANDS,
    MOST_LAG,
    NEAR_LAG,
    STEPS,
    inside,
    known,
    lagged,
    windowed,
)
from avse_ppl.models.networks.reliability import (
    FINE,
    OUT_OF_SYNC,
    PRIOR_APART,
    ReliabilityNetwork,
)
from avse_ppl.training.lips_augment import vary_crops
from avse_ppl.training.reliability_data import ReliabilityBatch

_WINDOWS = (9, 21, 75)
_ENVELOPE = 0.5
_VARIED = 0.5  # share of the batches whose crops are varied
_CAUSE = 0.4
_LEAST = 6  # frames to be compared
_RIDGE = 1e-2


class _Training(pl.LightningModule):
    def __init__(self, network: ReliabilityNetwork, rate: float, epochs: int) -> None:
        super().__init__()
        self.network, self.rate, self.epochs = network, rate, epochs

    def losses(self, batch: ReliabilityBatch) -> dict[str, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: ReliabilityBatch, _: int) -> Tensor:
        loss = self.losses(ReliabilityBatch(*batch))["loss"]
        if not bool(loss.isfinite()):
            raise ValueError(
                f"the training diverged in epoch {self.current_epoch}: its loss is {loss.item()}; "
                "train again with another --seed"
            )
        return loss

    def validation_step(self, batch: ReliabilityBatch, _: int) -> None:
        measured = {
            f"val_{key}": value for key, value in self.losses(ReliabilityBatch(*batch)).items()
        }
        self.log_dict(measured, batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        optimiser = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad], lr=self.rate, weight_decay=0.02
        )
        epochs = max(self.epochs, 1)

        def falling(epoch: int) -> float:
            return 0.5 * (1.0 + math.cos(math.pi * min(epoch / epochs, 0.97)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, falling)
        return {"optimizer": optimiser, "lr_scheduler": schedule}


class AVSyncTraining(_Training):
    r"""Phase "agreement": which sound belongs to these lips, through noise.

    .. math:: -\log \frac{\sum_{|\tau| \le 2} e^{\bar S_{t\tau}}}{\sum_\tau e^{\bar S_{t\tau}}}
        -\log \frac{e^{\bar S_{t}^{bb}}}{\sum_c e^{\bar S_{t}^{bc}}}
        + \tfrac12 |\ell_t - B v_t|^2 + \tfrac12 |\ell_t - B a_t|^2

    The first term tells the lag among all of a clip, over three windows; the second the clip
    among those of a batch; the others guess levels of the clean speech from the lips, and from
    the mixture, through one matrix B, so that both speak one language from the start.
    """

    def __init__(
        self, network: ReliabilityNetwork, rate: float, epochs: int, frozen: bool = False
    ) -> None:
        """Build the layer that guesses levels, which is not part of the network.

        A tower of the lips that is `frozen`, but for its last layer, keeps what it started from,
        which takes half the time.
        """
        super().__init__(network, rate, epochs)
        self.frozen = frozen
        network.requires_grad_(False)
        network.agreement.requires_grad_(True)
        if frozen:
            network.agreement.lips.requires_grad_(False)
            network.agreement.lips.out.requires_grad_(True)
        self.guess = nn.Conv1d(network.settings["features"], STEPS * BANDS, 1)

    def train(self, mode: bool = True) -> AVSyncTraining:
        """Keep a frozen tower in evaluation mode."""
        super().train(mode)
        self.network.agreement.lips.train(mode and not self.frozen)
        return self

    def losses(self, batch: ReliabilityBatch) -> dict[str, Tensor]:
        """Loss of a batch of clips as they were tracked, or varied."""
        agreement = self.network.agreement
        images = batch.images
        if self.training and float(torch.rand(())) < _VARIED:
            images = vary_crops(
                images, torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            )
        present = batch.columns[..., 0]
        seen, heard, seen_at = agreement.encode(images, batch.levels, present)
        sounding = inside(torch.ones_like(present[:1]))[0]
        scale = agreement.scale.exp().clamp(max=60.0)
        scores, valid = lagged(seen, heard, seen_at, scale, sounding)
        lag, right = torch.zeros(()), torch.zeros(())
        for window in _WINDOWS:
            mean, count = windowed(scores, valid, window)
            told = mean.masked_fill(count == 0, -1e4)
            around = slice(MOST_LAG - NEAR_LAG, MOST_LAG + NEAR_LAG + 1)
            loss = told.logsumexp(-1) - told[..., around].logsumexp(-1)
            there = known(count).float()
            lag = lag + (loss * there).sum() / there.sum().clamp(min=1) / len(_WINDOWS)
            hit = ((told.argmax(-1) - MOST_LAG).abs() <= NEAR_LAG).float()
            right = (hit * there).sum() / there.sum().clamp(min=1)
        others = _between(seen, heard, scale, seen_at * sounding)
        envelope = self._error(seen, batch.clean, seen_at)
        denoised = self._error(heard, batch.clean, sounding.expand_as(present))
        loss = lag + others + _ENVELOPE * (envelope + denoised)
        return {
            "loss": loss, "lag": lag, "clip": others, "envelope": envelope,
            "denoised": denoised, "right": right,
        }  # fmt: skip

    def _error(self, features: Tensor, clean: Tensor, counted: Tensor) -> Tensor:
        """Mean squared error of the levels, over frames that count."""
        guess = self.guess(features * features.shape[1] ** 0.5)
        error = (guess - clean.transpose(1, 2)).square().mean(1)
        return (error * counted).sum() / counted.sum().clamp(min=1)


def _between(seen: Tensor, heard: Tensor, scale: Tensor, counted: Tensor) -> Tensor:
    """Loss of telling whose sound it is among the clips of a batch, over 0.84 s."""
    product = scale * torch.einsum("bft,cft->bct", seen, heard) * counted[:, None]
    count = _summed(counted[:, None])[:, 0]
    mean = _summed(product) / count.clamp(min=1.0)[:, None]
    target = torch.arange(len(seen), device=seen.device)[:, None].expand(-1, mean.shape[-1])
    loss = cross_entropy(mean, target, reduction="none") * (count >= _LEAST)
    return loss.sum() / (count >= _LEAST).sum().clamp(min=1)


def _summed(values: Tensor) -> Tensor:
    return avg_pool1d(pad(values, (10, 10)), 21, 1) * 21


class QualityTraining(_Training):
    r"""Phase "pictures": score and cause of corrupted clips, by what is seen.

    .. math:: -r_t \log \hat r_t - (1 - r_t) \log(1 - \hat r_t) - 0.4 \log \hat p_t(c_t)

    over frames with a face; towers that compare lips and sound stay as they are.
    """

    def __init__(self, network: ReliabilityNetwork, rate: float, epochs: int) -> None:
        """Freeze the towers."""
        super().__init__(network, rate, epochs)
        network.requires_grad_(True)
        network.agreement.requires_grad_(False)

    def train(self, mode: bool = True) -> QualityTraining:
        """Keep the towers in evaluation mode."""
        super().train(mode)
        self.network.agreement.eval()
        return self

    def losses(self, batch: ReliabilityBatch) -> dict[str, Tensor]:
        """Loss of a batch of corrupted clips."""
        score, cause = self.network.by_pictures(batch.images, batch.columns)
        found = batch.columns[..., 0]
        fit = binary_cross_entropy_with_logits(score, batch.reliability, reduction="none")
        fit = (fit * found).sum() / found.sum().clamp(min=1)
        named = cross_entropy(cause, batch.cause)
        error = (score.sigmoid() - batch.reliability).abs().mean()
        return {"loss": fit + _CAUSE * named, "score": fit, "cause": named, "error": error}


def calibrate(
    network: ReliabilityNetwork, batches: Iterable[ReliabilityBatch]
) -> tuple[float, float]:
    """Fit temperature and offset of the score to held-out clips; returns both.

    Raises
    ------
    ValueError
        If no frame has a face.
    """
    logits, truths = [], []
    network.calibration.copy_(torch.tensor([1.0, 0.0]))
    for batch in batches:
        with torch.no_grad():
            score, _ = network.by_pictures(batch.images, batch.columns)
        found = batch.columns[..., 0] > 0.5
        logits.append(score[found])
        truths.append(batch.reliability[found])
    logit, truth = torch.cat(logits), torch.cat(truths)
    if len(logit) == 0:
        raise ValueError("no frame to calibrate on has a face; give lips with faces in them")
    fitted = _least(
        torch.tensor([1.0, 0.0]),
        lambda at: binary_cross_entropy_with_logits(at[0] * logit + at[1], truth),
    )
    network.calibration.copy_(fitted)
    temperature, offset = fitted.tolist()
    return temperature, offset


def calibrate_apart(
    network: ReliabilityNetwork, batches: Iterable[ReliabilityBatch]
) -> dict[str, float]:
    """Fit how far the sound lowers the score, on held-out people whose lips look fine.

    Both sides count alike; the offset is then moved to `PRIOR_APART`. Returns how well they are
    told from each other.
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

    fitted = _least(torch.zeros(1 + row.shape[1]), loss)
    said = fitted[0] + row @ fitted[1:]
    network.apart.copy_(fitted)
    network.apart[0] += math.log(PRIOR_APART / (1.0 - PRIOR_APART))
    right = ((said > 0.0) == (apart > 0.5)).float() * weight
    return {"frames": float(len(apart)), "right": float(right.sum() / weight.sum())}


def _least(start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Minimise by L-BFGS."""
    fitted = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([fitted], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> float:
        optimiser.zero_grad()
        value = loss(fitted)
        value.backward()
        return float(value.detach())

    optimiser.step(cast("Any", step))
    return fitted.detach()
