"""Base of all training objectives: losses, logging, gradient clipping and learning rates."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

_PATIENCE = 20  # steps
_WARMUP_STEPS = 100


class Objective(pl.LightningModule):
    """What one phase of training minimises.

    A subclass computes the `losses` of a batch and chooses the optimiser. Steps whose gradient is
    not finite are left out.

    Parameters
    ----------
    network
        What is trained; a subclass may freeze parts of it.
    epochs
        Passes over the data.
    learning_rate
        At its peak.
    """

    gradient_clip: ClassVar[float] = 5.0  # norm
    validate_each_epoch: ClassVar[bool] = True
    seed_each_step: ClassVar[bool] = True  # so that a resumed run draws what a whole one would

    def __init__(self, network: Any, epochs: int, learning_rate: float) -> None:
        super().__init__()
        self.epochs, self.learning_rate, self.seed, self.left_out = epochs, learning_rate, 0, 0
        self.network: Any = network

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Compute the ``"loss"`` of a batch, and further figures to be logged."""
        raise NotImplementedError

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Compute the loss of one step."""
        losses = self.losses(batch)
        self.log_dict(losses, prog_bar=True)
        return losses["loss"]

    def validation_step(self, batch: Any, _index: int) -> None:
        """Log the losses on held-out clips."""
        values = {f"val_{key}": value for key, value in self.losses(batch).items()}
        self.log_dict(values, prog_bar=True, batch_size=len(batch))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the draws of each step."""
        if self.seed_each_step:
            number = batch_idx * self.trainer.world_size + self.trainer.global_rank
            torch.manual_seed(hash((self.seed, self.current_epoch, number)))

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Seed the draws alike for each validation."""
        if self.seed_each_step:
            torch.manual_seed(hash((self.seed, batch_idx)))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm; leave out a step whose gradient has overflowed, stop if that goes on."""
        trained = [p for p in self.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)
        self.left_out = 0 if bool(norm.isfinite()) else self.left_out + 1
        if self.left_out:
            optimizer.zero_grad()
        if self.left_out > _PATIENCE:
            raise ValueError(
                f"training has diverged: {self.left_out} gradients in a row were not finite; lower "
                "the recipe's learning rate, and start over with --no-resume"
            )

    def list_trained(self) -> list[torch.nn.Parameter]:
        """List the parameters that learn, those of layers that are not kept among them."""
        return [p for p in self.parameters() if p.requires_grad]

    def configure_optimizers(self) -> Any:
        """Adam; its rate falls along a cosine, epoch by epoch, to a hundredth."""
        optimiser = torch.optim.Adam(self.list_trained(), lr=self.learning_rate)

        def factor(epoch: int) -> float:
            return decay_by_cosine(epoch / self.epochs)

        return [optimiser], [torch.optim.lr_scheduler.LambdaLR(optimiser, factor)]

    def anneal_each_step(self, optimiser: torch.optim.Optimizer) -> Any:
        """Let a rate rise over the first steps, then fall along a cosine to a hundredth."""
        steps = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            return decay_by_cosine(min(step / steps, 1.0)) * min(1.0, (step + 1) / _WARMUP_STEPS)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]


def decay_by_cosine(fraction: float) -> float:
    """Factor of a learning rate that falls along a cosine, from 1 to a hundredth.

    Examples
    --------
    >>> [round(decay_by_cosine(f), 3) for f in (0.0, 0.5, 1.0)]
    [1.0, 0.505, 0.01]
    """
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction))


def freeze_except(network: torch.nn.Module, *prefixes: str) -> None:
    """Let only those parameters learn whose names begin with one of the prefixes."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))


def draw_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """Draw from a diagonal normal distribution."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)


def normal_nll(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Negative log density of a normal distribution, element by element."""
    terms = logvar + (z - mean).square() * torch.exp(-logvar)
    return 0.5 * (terms + math.log(2 * math.pi))
