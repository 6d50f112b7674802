"""What the two phases of training the reliability network lower."""

from __future__ import annotations

import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, binary_cross_entropy_with_logits, cross_entropy, pad

from avse_ppl.models.networks.agreement import (
    BANDS,
    MOST_LAG,
    STEPS,
    Agreement,
    lagged,
    windowed,
)
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.training.lips_augment import vary_crops
from avse_ppl.training.reliability_data import Judgeable

_WINDOWS = (9, 21, 75)
_NEAR = 2  # frames
_ENDS = 4  # of a clip, up to one part in so many is cut off at an end
_ENVELOPE = 0.5
_VARIED = 0.5  # share of the batches whose crops are varied
_CAUSE = 0.4


class _Training(pl.LightningModule):
    def __init__(self, network: ReliabilityNetwork, rate: float, epochs: int) -> None:
        super().__init__()
        self.network, self.rate, self.epochs = network, rate, epochs

    def losses(self, batch: Judgeable) -> dict[str, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: Judgeable, _: int) -> Tensor:
        loss = self.losses(Judgeable(*batch))["loss"]
        if not bool(loss.isfinite()):
            raise ValueError(
                f"the training diverged in epoch {self.current_epoch}: its loss is {loss.item()}; "
                "train again with another --seed"
            )
        return loss

    def validation_step(self, batch: Judgeable, _: int) -> None:
        measured = {f"val_{key}": value for key, value in self.losses(Judgeable(*batch)).items()}
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


class AgreementTraining(_Training):
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

    def train(self, mode: bool = True) -> AgreementTraining:
        """Keep a frozen tower in evaluation mode."""
        super().train(mode)
        self.network.agreement.lips.train(mode and not self.frozen)
        return self

    def losses(self, batch: Judgeable) -> dict[str, Tensor]:
        """Loss of a batch of clips as they were tracked, or varied."""
        agreement = self.network.agreement
        images = batch.images
        if self.training and float(torch.rand(())) < _VARIED:
            images = vary_crops(
                images, torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            )
        present = batch.columns[..., 0]
        seen, heard, present, sounding = _apart(agreement, images, batch.levels, present)
        scale = agreement.scale.exp().clamp(max=60.0)
        scores, valid = lagged(seen, heard, present, scale, sounding)
        lag, right = torch.zeros(()), torch.zeros(())
        for window in _WINDOWS:
            mean, count = windowed(scores, valid, window)
            known = mean.masked_fill(count == 0, -1e4)
            around = slice(MOST_LAG - _NEAR, MOST_LAG + _NEAR + 1)
            loss = known.logsumexp(-1) - known[..., around].logsumexp(-1)
            there = (count[..., around] > 0).any(-1).float()  # the right lag can be heard
            lag = lag + (loss * there).sum() / there.sum().clamp(min=1) / len(_WINDOWS)
            hit = ((known.argmax(-1) - MOST_LAG).abs() <= 2).float()
            right = (hit * there).sum() / there.sum().clamp(min=1)
        others = _between(seen, heard, scale)
        envelope = self._error(seen, batch.clean, present)
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


def _apart(
    agreement: Agreement, images: Tensor, levels: Tensor, present: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encode lips and sound of windows that begin and end apart.

    The ends of a clip leave a trace in both towers. Were they the same in both, the lag could be
    told from them alone: so it was, on clips of a second.
    """
    frames = images.shape[1]
    a, b, c, d = torch.randint(0, frames // _ENDS + 1, (4,)).tolist()
    lips, sound = slice(a, frames - b), slice(c, frames - d)
    seen, heard = agreement.encode(images[:, lips], levels[:, sound], present[:, lips])
    whole = torch.zeros_like(present)
    whole[:, lips] = present[:, lips]
    sounding = torch.zeros_like(present[0])
    sounding[sound] = 1.0
    return pad(seen, (a, b)), pad(heard, (c, d)), whole, sounding


def _between(seen: Tensor, heard: Tensor, scale: Tensor) -> Tensor:
    """Loss of telling whose sound it is among the clips of a batch, over 0.84 s."""
    product = scale * torch.einsum("bft,cft->bct", seen, heard)
    mean = avg_pool1d(pad(product, (10, 10)), 21, 1, count_include_pad=False)
    target = torch.arange(len(seen), device=seen.device)[:, None].expand(-1, mean.shape[-1])
    return cross_entropy(mean, target)


class ReliabilityTraining(_Training):
    r"""Phase "reliability": score and cause of corrupted clips.

    .. math:: -r_t \log \hat r_t - (1 - r_t) \log(1 - \hat r_t) - 0.4 \log \hat p_t(c_t)

    over frames with a face; towers that compare lips and sound stay as they are.
    """

    def __init__(self, network: ReliabilityNetwork, rate: float, epochs: int) -> None:
        """Freeze the towers."""
        super().__init__(network, rate, epochs)
        network.requires_grad_(True)
        network.agreement.requires_grad_(False)

    def train(self, mode: bool = True) -> ReliabilityTraining:
        """Keep the towers in evaluation mode."""
        super().train(mode)
        self.network.agreement.eval()
        return self

    def losses(self, batch: Judgeable) -> dict[str, Tensor]:
        """Loss of a batch of corrupted clips."""
        judged = self.network(batch.images, batch.columns, batch.levels, batch.heard)
        found = batch.columns[..., 0]
        fit = binary_cross_entropy_with_logits(judged.score, batch.reliability, reduction="none")
        fit = (fit * found).sum() / found.sum().clamp(min=1)
        named = cross_entropy(judged.cause, batch.cause)
        error = (judged.score.sigmoid() - batch.reliability).abs().mean()
        return {"loss": fit + _CAUSE * named, "score": fit, "cause": named, "error": error}


def calibrate(network: ReliabilityNetwork, batches: list[Judgeable]) -> tuple[float, float]:
    """Fit temperature and offset of the score to held-out clips; returns both.

    Raises
    ------
    ValueError
        If no frame has a face.
    """
    logits, truths = [], []
    network.calibration.copy_(torch.tensor([1.0, 0.0]))
    with torch.no_grad():
        for batch in batches:
            judged = network(batch.images, batch.columns, batch.levels, batch.heard)
            found = batch.columns[..., 0] > 0.5
            logits.append(judged.score[found])
            truths.append(batch.reliability[found])
    logit, truth = torch.cat(logits), torch.cat(truths)
    if len(logit) == 0:
        raise ValueError("no frame to calibrate on has a face; give lips with faces in them")
    fitted = torch.tensor([1.0, 0.0], requires_grad=True)
    optimiser = torch.optim.LBFGS([fitted], max_iter=50)

    def step() -> float:
        optimiser.zero_grad()
        loss = binary_cross_entropy_with_logits(fitted[0] * logit + fitted[1], truth)
        loss.backward()
        return float(loss.detach())

    optimiser.step(cast("Any", step))
    temperature, offset = fitted.detach().tolist()
    network.calibration.copy_(fitted.detach())
    return temperature, offset
