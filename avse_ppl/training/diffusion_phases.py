"""What the training of a diffusion prior lowers."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor

from avse_ppl.models.speech.compression import Compression
from avse_ppl.signal.stft import Stft
from avse_ppl.training.phases import VaeTraining, power_of
from avse_ppl.training.recipes import DiffusionRecipe
from avse_ppl.training.seeing_data import AVBatch
from avse_ppl.training.seeing_phases import frame_times, visual_of

_RISE = 100  # steps over which the learning rate rises
_FLOOR = 1e-6  # power of the noise under speech, -60 dB: digital silence has no density


class DenoiserTraining(VaeTraining):
    r"""A denoiser's mean m and variance v at noise levels drawn anew for each crop.

    .. math:: E\left[\log v + |c - m|^2 / v\right] + E\,|c - m|^2 (\sigma^{-2} + \sigma_d^{-2})

    The first term makes the variance honest, which guidance relies on; the second, weighted as by
    Karras et al. (2022), keeps hard bins from being given up on. :math:`\log \sigma` is normal,
    within the recipe's bounds. What is kept of the weights is their running mean.
    """

    def configure_callbacks(self) -> list[Callback]:
        """Average the weights, over the last steps only while there are few."""
        decay = cast(DiffusionRecipe, self.recipe).averaging

        def average(before: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
            return torch.lerp(now, before, min(decay, int(count) / (int(count) + 9)))

        return [WeightAveraging(avg_fn=average)]

    def configure_optimizers(self) -> Any:
        """Adam along a cosine, after a rise over the first steps."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=self.recipe.learning_rate)
        steps = max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
            return fall * min(1.0, (step + 1) / _RISE)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def sigmas(self, crops: int) -> Tensor:
        """Levels of the noise, ``(crop,)``."""
        recipe = cast(DiffusionRecipe, self.recipe)
        low, high = (math.log(bound) for bound in recipe.sigma)
        draws = recipe.sigma_centre + recipe.sigma_sd * torch.randn(crops, device=self.device)
        # Outside the bounds, uniform between them: none is missed, none is met too often.
        uniform = low + (high - low) * torch.rand(crops, device=self.device)
        return torch.exp(torch.where((draws > low) & (draws < high), draws, uniform))

    def compared(
        self, clean: Tensor, mean: Tensor, variance: Tensor, sigma: Tensor
    ) -> dict[str, Tensor]:
        """Loss of what the network said of ``clean``, and its parts, a bin or latent each."""
        gap = clean - mean
        squared = gap.real.square() + gap.imag.square() if gap.is_complex() else gap.square()
        weight = sigma.pow(-2) + self.network.spread**-2
        nll = (torch.log(variance) + squared / variance).mean()
        fit = (squared * weight[:, None, None]).mean()
        return {"loss": nll + fit, "nll": nll, "fit": fit}


class ScoreTraining(DenoiserTraining):
    """`DenoiserTraining` of the compressed complex spectrogram of speech."""

    def __init__(self, recipe: DiffusionRecipe, stft: Stft, network: Any = None) -> None:
        """Build the network."""
        super().__init__(recipe, stft, network)
        self.compression = Compression(self.network.exponent)

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, picture, features)``."""
        speech = self.stft.forward(batch.waves)
        speech = speech + math.sqrt(_FLOOR) * torch.randn_like(speech)
        clean = self.compression.compress(speech)
        sigma = self.sigmas(len(clean))
        noisy = clean + sigma[:, None, None] * torch.randn_like(clean)
        visual = visual_of(batch, frame_times(self.stft, speech), self)
        mean, variance = self.network(noisy, sigma, visual)
        return self.compared(clean, mean, variance, sigma)


class LatentDiffusionTraining(DenoiserTraining):
    """`DenoiserTraining` of the latents that a teacher finds in clean speech."""

    def __init__(
        self, recipe: DiffusionRecipe, stft: Stft, network: Any, teacher: Any
    ) -> None:  # fmt: skip
        """Freeze all but the denoiser."""
        super().__init__(recipe, stft, network)
        self.teacher = teacher.requires_grad_(False)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("denoiser"))

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, picture, features)``."""
        power = power_of(self.stft.forward(batch.waves))
        with torch.no_grad():
            mean, logvar = self.teacher.infer(power)
            clean = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        sigma = self.sigmas(len(clean))
        noisy = clean + sigma[:, None, None] * torch.randn_like(clean)
        visual = visual_of(batch, frame_times(self.stft, power), self)
        mean, variance = self.network.denoise(noisy, sigma, visual)
        return self.compared(clean, mean, variance, sigma)
