"""A causal temporal convolutional network in a stream: a few frames at a time, past ones kept."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from avse_ppl.models.networks.tcn import MEMORY, TcnNetwork

_LONG_S, _SHORT_S = 10.0, 1.0  # over which the level is averaged


class TcnStream:
    r"""State of a `TcnNetwork` in causal mode, and its step.

    A block with dilation d needs what it computed d frames ago; so many frames of each are kept,
    and the running mean of the features. Frames come with the level that they are divided by,

    .. math:: s_{ft} \mid x \sim N_c(m_{ft}\, x_{ft}, \; \ell_t^2\, e_{ft})

    With one level for all frames, any cut of a recording into steps gives what ``network(mixture /
    level, causal=True)`` gives, but that frames of zeros do not count in the running mean: a
    microphone that is switched off says nothing of the sound. Where the level changes, the mean is
    kept of what is not divided by it, so that a new level is not taken for a change of the sound.

    Parameters
    ----------
    network
        Its weights are not changed, and other streams may use it at the same time.

    References
    ----------
    Rybakov, Kononenko, Subrahmanya, Visontai and Laurenzo, "Streaming keyword spotting on mobile
    devices", Interspeech 2020.

    Examples
    --------
    >>> network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2).eval()
    >>> stream = TcnStream(network)
    >>> values = torch.randn(257, 6, dtype=torch.complex64)
    >>> parts = [stream.step(part, torch.ones(part.shape[1])) for part in values.split(4, dim=1)]
    >>> whole = network(values[None], causal=True).speech[0]
    >>> torch.allclose(torch.cat([speech for speech, _ in parts], 1), whole, atol=1e-5)
    True
    """

    def __init__(self, network: TcnNetwork) -> None:
        self.network = network
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far."""
        network = self.network
        blocks: Any = network.blocks
        weight = network.output.weight
        self.count = 0
        self.usual = weight.new_zeros(network.pool.shape[1])
        self.past = [
            weight.new_zeros(1, block.dilation, network.sizes[-1], block.taps.shape[1])
            for block in blocks
        ]

    def step(self, values: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Law of speech in the next frames: mean and power of the error, ``(freq, time)`` each.

        Parameters
        ----------
        values
            STFT of the mixture, ``(freq, time)``, complex.
        level
            Root mean square that each frame is divided by, ``(time,)``.
        """
        with torch.inference_mode():
            mixture = (values / level)[None]
            bands = self.network.measure_bands(mixture)
            log_level = (0.5 * level.log())[:, None]  # as the log powers of the bands are scaled
            absolute = bands[0, :, :, 3] + log_level
            silent = (values == 0).all(0)
            relative = absolute - self.update_mean(absolute, silent)
            bands = torch.cat((bands, relative[None, :, :, None]), -1)
            found = self.network.predict(self.network.run(bands, past=self.past), mixture)
            return found.speech[0] * level, found.log_error[0].exp() * level.square()

    def update_mean(self, values: Tensor, silent: Tensor) -> Tensor:
        """Running mean after each of the next frames ``(time, band)``, without the silent ones."""
        rows = []
        for row, is_silent in zip(values, silent.tolist(), strict=True):
            if not is_silent:
                self.count = min(self.count + 1, MEMORY)
                self.usual = self.usual + (row - self.usual) / self.count
            rows.append(self.usual if self.count else row)
        return torch.stack(rows)


class RunningLevel:
    r"""Running estimate of the root mean square of an STFT, in place of that of a recording.

    .. math:: \ell_t^2 = \max(a_t, b_t / 2)

    with a and b means of the power of frames that fade after 10 s and after 1 s: the first is the
    level, and the second takes over where sound sets in after a long pause. Before their time is
    over, both are plain means. Frames of zeros do not count.

    Parameters
    ----------
    frame_s
        Time from one frame to the next, seconds.

    Examples
    --------
    >>> level = RunningLevel(0.016)
    >>> level.update(torch.full((257, 3), 2.0 + 0j))
    tensor([2., 2., 2.])
    """

    def __init__(self, frame_s: float) -> None:
        self.long, self.short = round(_LONG_S / frame_s), round(_SHORT_S / frame_s)
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far."""
        self.count, self.slow, self.fast = 0, 0.0, 0.0

    def update(self, values: Tensor) -> Tensor:
        """Level after each of the next frames ``(freq, time)``."""
        rows = []
        for power in (values.real.square() + values.imag.square()).mean(0).tolist():
            if power > 0:
                self.count = min(self.count + 1, self.long)
                self.slow += (power - self.slow) / self.count
                self.fast += (power - self.fast) / min(self.count, self.short)
            rows.append(math.sqrt(max(self.slow, 0.5 * self.fast, 1e-20)))
        return torch.tensor(rows, dtype=torch.float32, device=values.device)
