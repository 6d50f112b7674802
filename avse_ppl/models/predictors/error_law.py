"""Power of a predictor's error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avse_ppl.signal.stft import Spectrogram


class ErrorLaw(nn.Module):
    """Power of the error: shares of the power of the prediction, and of what it removed."""

    def __init__(self, own: float = 0.1, removed: float = 0.02) -> None:
        super().__init__()
        self.own, self.removed = own, removed

    def __call__(self, mixture: Spectrogram, predicted: Tensor) -> Tensor:
        """Log power of the error, ``(recording, freq, time)``."""
        kept = predicted.real.square() + predicted.imag.square()
        rest = mixture.values - predicted
        removed = rest.real.square() + rest.imag.square()
        return torch.log(self.own * kept + self.removed * removed + 1e-6)
