"""What each phase of training lowers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from avse_ppl.models.weights.io import NETWORKS
from avse_ppl.signal.stft import Stft
from avse_ppl.training.recipes import Recipe

_PATIENCE = 20  # steps
POWER_FLOOR = 1e-6  # -60 dB below active speech: keeps digital silence out of the logarithm


class VaeTraining(pl.LightningModule):
    r"""First phase: negative ELBO of a speech VAE, nats a frame.

    .. math:: E_q \sum_f \left[\ell_{ft} + |s_{ft}|^2 e^{-\ell_{ft}}\right]
        + w \sum_l \tfrac12 (\mu_{lt}^2 + \sigma_{lt}^2 - \log \sigma_{lt}^2 - 1)

    The first term is the Itakura-Saito fit, the second the exact KL divergence to N(0, 1); its
    weight w rises from 0 to the recipe's during the warm-up and stays there. At validation it is 1:
    what is logged there is the evidence lower bound.

    Parameters
    ----------
    recipe
        What to train, how long.
    stft
        Front end.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any = None) -> None:
        """Build the network, unless it is given."""
        super().__init__()
        self.recipe, self.stft, self.epochs, self.seed = recipe, stft, recipe.epochs, 0
        self.left_out = 0
        if network is None:
            network = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)
        self.network: Any = network

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Loss and its parts, of crops ``(crop, sample)``."""
        power = power_of(self.stft.forward(batch))
        mean, logvar, z = (a.float() for a in self.network.encode(power, sample=True))
        log_power = self.network.decode(z).float()
        fit = (log_power + power * torch.exp(-log_power)).sum(-2).mean()
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).sum(-2).mean()
        warm = min(1.0, (self.current_epoch + 1) / max(1, self.recipe.kl_warmup_epochs))
        weight = warm * self.recipe.kl_weight if self.training else 1.0
        return {"loss": fit + weight * kl, "fit": fit, "kl": kl}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the draws of each step, so that a resumed run draws what a whole one would."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx)))

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the same for each validation."""
        torch.manual_seed(hash((self.seed, batch_idx)))

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        """One step's loss."""
        losses = self.losses(batch)
        self.log_dict(losses, prog_bar=True)
        return losses["loss"]

    def validation_step(self, batch: Tensor, _index: int) -> None:
        """Log the losses on unseen speakers."""
        values = {f"val_{key}": value for key, value in self.losses(batch).items()}
        self.log_dict(values, prog_bar=True, batch_size=len(batch))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip; leave a step out whose gradient has overflowed, stop if that keeps happening."""
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

    def configure_optimizers(self) -> Any:
        """Adam along a cosine down to a hundredth of its rate."""
        # Of the module and not only of the network: a phase may have layers that are not kept.
        trained = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=self.recipe.learning_rate)

        def factor(epoch: int) -> float:
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

        return [optimiser], [torch.optim.lr_scheduler.LambdaLR(optimiser, factor)]


class EncoderTraining(VaeTraining):
    r"""Second phase: the encoder learns the posterior of the latents given a mixture.

    .. math:: -E_{p(s, x)} E_{q_0(z | s)} \log q(z | x)

    with :math:`q_0` the encoder that the first phase left, looking at the clean speech (neural
    posterior estimation). The decoder stays what clean speech made it. Inference then starts near
    the right answer even in loud noise, and goes on from there.

    Parameters
    ----------
    recipe, stft
        As before.
    network
        What the first phase left; its encoder is trained in place.

    References
    ----------
    Papamakarios and Murray, "Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation", NeurIPS 2016.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any) -> None:
        """Keep a frozen copy of the network as the teacher; freeze the decoder."""
        super().__init__(recipe, stft, network)
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith("encoder"))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``."""
        speech, noise = self.stft.forward(batch).unbind(1)
        seen = power_of(speech + noise)
        level = seen.mean((-2, -1), keepdim=True)  # as a mixture is normalised for inference
        with torch.no_grad():
            z = self.teacher.encode(power_of(speech) / level, sample=True)[2].float()
        mean, logvar, _ = (a.float() for a in self.network.encode(seen / level))
        terms = logvar + (z - mean).square() * torch.exp(-logvar)
        return {"loss": 0.5 * (terms + math.log(2 * math.pi)).sum(-2).mean()}


def power_of(values: Tensor) -> Tensor:
    """Power of a complex STFT, above a floor."""
    return values.real.square() + values.imag.square() + POWER_FLOOR
