"""Short-time Fourier transform (STFT) and its inverse; the time-frequency grid.

`Stft.analyse` turns waveforms into a `Spectrogram`: what every scene observes. `Stft.synthesise`
goes back, exactly. A spectrogram is normalised to unit mean power per recording, so that a noise
model written for one recording has the right scale on every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from pyroapi import ops
from torch import Tensor

_CPU = torch.device("cpu")
# How many bins apart those of one frame of white noise are uncorrelated.
COUPLED_BINS = MappingProxyType({"sine": 2, "hann": 3})


@dataclass(frozen=True)
class Frames:
    """Time-frequency grid on which a model is evaluated.

    Parameters
    ----------
    freq, time
        Number of frequency bins and of frames: the sizes of ``plate("freq", frames.freq, dim=-2)``
        and ``plate("time", frames.time, dim=-1)``.
    sample_rate_hz, hop, n_fft
        What the grid was made with, in Hz and samples.
    device, dtype
        Where the arrays below live; ``None`` and a JAX dtype under NumPyro.
    visual
        Gated visual features, ``(recording, 1 + feature, time)``: the gate in [0, 1], and the
        features of the lips times it. None without video.
    encoded
        What the encoder of the speech prior measured of its latents, ``(recording, 2 latent,
        time)``: values, then standard deviations, see `avse_ppl.models.speech.latent`. None
        without.
    predicted
        What a predictor made of the recording, ``(recording, 4, freq, time)``: real and imaginary
        part, log power of its error, and 1 where that counts, see
        `avse_ppl.models.predictors.predictor`. None without.

    Examples
    --------
    >>> frames = Frames(freq=257, time=100, sample_rate_hz=16000, hop=128, n_fft=512)
    >>> frames.freq_hz.shape, round(float(frames.freq_hz[-1]))
    (torch.Size([257, 1]), 8000)
    """

    freq: int
    time: int
    sample_rate_hz: int = 16000
    hop: int = 256
    n_fft: int = 1024
    device: torch.device = _CPU
    dtype: torch.dtype = torch.float32
    visual: Any = field(default=None, compare=False, repr=False)
    encoded: Any = field(default=None, compare=False, repr=False)
    predicted: Any = field(default=None, compare=False, repr=False)

    @property
    def freq_hz(self) -> Tensor:
        """Centre frequency of each bin, Hz, ``(freq, 1)``."""
        bins = ops.arange(self.freq, device=self.device, dtype=self.dtype)
        return (bins * (self.sample_rate_hz / self.n_fft))[:, None]

    @property
    def time_s(self) -> Tensor:
        """Centre of each frame, seconds, ``(time,)``."""
        index = ops.arange(self.time, device=self.device, dtype=self.dtype)
        return index * (self.hop / self.sample_rate_hz)

    def take_first(self) -> Frames:
        """Return the grid of the first recording alone."""
        arrays = {"visual": self.visual, "encoded": self.encoded, "predicted": self.predicted}
        return replace(self, **{k: v if v is None else v[:1] for k, v in arrays.items()})

    def number(self, value: float) -> Tensor:
        """Return a number as an array without dimensions, of this grid's device and dtype."""
        return ops.asarray(value, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Spectrogram:
    """Complex STFT of one or several recordings, normalised to unit mean power.

    Parameters
    ----------
    values
        ``(recording, freq, time)``, complex.
    frames
        The grid of ``values``.
    n_samples
        Length of each waveform in samples.
    scale
        ``(recording,)``: the waveform's STFT is ``scale * values``.
    stft
        The transform that made it, and that undoes it.
    observed
        Which bins hold sound, ``(recording, freq, time)``; None: all of them. See
        `avse_ppl.signal.observed_bins`.
    recorded
        Values as they were recorded, where those that are not observed were imputed.
    """

    values: Tensor
    frames: Frames
    n_samples: tuple[int, ...]
    scale: Tensor
    stft: Stft
    observed: Tensor | None = None
    recorded: Tensor | None = None

    @property
    def recordings(self) -> int:
        """Number of recordings."""
        return self.values.shape[0]

    @property
    def power(self) -> Tensor:
        """``|x|^2``, ``(recording, freq, time)``."""
        return self.values.real.square() + self.values.imag.square()

    @property
    def mask(self) -> Tensor | None:
        """Which bins are observed, ``(recording, freq or 1, time)``; None if all of them are.

        Not observed are the padding of shorter recordings, and what ``observed`` leaves out.
        """
        counts = [self.stft.count_frames(n) for n in self.n_samples]
        if min(counts) == self.frames.time:
            return self.observed
        index = torch.arange(self.frames.time, device=self.values.device)
        inside = index < torch.tensor(counts, device=self.values.device)[:, None, None]
        return inside if self.observed is None else inside & self.observed

    def occupied_hz(self, recording: int) -> tuple[float, float]:
        """Lowest and highest frequency at which a recording was observed, Hz."""
        freq_hz = self.frames.freq_hz[:, 0]
        if self.observed is not None:
            rows = self.observed[recording].any(-1)
            freq_hz = freq_hz[rows] if bool(rows.any()) else freq_hz
        return float(freq_hz[0]), float(freq_hz[-1])

    def to(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> Spectrogram:
        """Return the same spectrogram on another device or real dtype."""
        device = torch.device(device)
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        frames = self.frames
        arrays = {"visual": frames.visual, "encoded": frames.encoded, "predicted": frames.predicted}
        moved: Any = {k: v if v is None else v.to(device, dtype) for k, v in arrays.items()}
        return replace(
            self,
            values=self.values.to(device, complex_dtype),
            scale=self.scale.to(device, dtype),
            observed=None if self.observed is None else self.observed.to(device),
            recorded=None if self.recorded is None else self.recorded.to(device, complex_dtype),
            frames=replace(frames, device=device, dtype=dtype, **moved),
        )

    def with_visual(self, visual: Tensor | None) -> Spectrogram:
        """Return the same spectrogram with visual features, see `Frames`."""
        return replace(self, frames=replace(self.frames, visual=visual))

    def with_encoded(self, encoded: Tensor | None) -> Spectrogram:
        """Return the same spectrogram with what an encoder measured, see `Frames`."""
        return replace(self, frames=replace(self.frames, encoded=encoded))

    def with_predicted(self, predicted: Tensor | None) -> Spectrogram:
        """Return the same spectrogram with what a predictor made of it, see `Frames`."""
        return replace(self, frames=replace(self.frames, predicted=predicted))

    def select(self, index: int) -> Spectrogram:
        """Return one recording of the batch, its padding removed."""
        time = self.stft.count_frames(self.n_samples[index])
        frames = self.frames
        arrays = {"visual": frames.visual, "encoded": frames.encoded, "predicted": frames.predicted}
        kept: Any = {
            k: v if v is None else v[index : index + 1, ..., :time] for k, v in arrays.items()
        }
        observed, recorded = (
            None if array is None else array[index : index + 1, :, :time]
            for array in (self.observed, self.recorded)
        )
        return replace(
            self,
            values=self.values[index : index + 1, :, :time],
            observed=observed,
            recorded=recorded,
            frames=replace(frames, time=time, **kept),
            n_samples=(self.n_samples[index],),
            scale=self.scale[index : index + 1],
        )


@dataclass(frozen=True)
class Stft:
    r"""Short-time Fourier transform with a sine or Hann window and perfect reconstruction.

    .. math:: x_{ft} = \sum_n w_n\, x_{n + tH} e^{-2 i \pi f n / N}

    Parameters
    ----------
    n_fft, hop
        Window and transform length, and step between frames, in samples.
    window
        ``"sine"`` (square root of Hann) or ``"hann"``, both periodic.
    sample_rate_hz
        The rate of the waveforms, Hz.

    Raises
    ------
    ValueError
        If the window does not overlap enough for perfect reconstruction, or is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> wave = np.random.default_rng(0).normal(size=1000).astype("float32")
    >>> spectrogram = Stft().analyse(wave)
    >>> tuple(spectrogram.values.shape)
    (1, 513, 5)
    >>> bool(np.allclose(Stft().synthesise(spectrogram)[0], wave, atol=1e-5))
    True
    """

    n_fft: int = 1024
    hop: int = 256
    window: str = "sine"
    sample_rate_hz: int = 16000

    def __post_init__(self) -> None:
        if self.window not in ("sine", "hann"):
            raise ValueError(f"window must be 'sine' or 'hann', not {self.window!r}")
        if not 0 < self.hop <= self.n_fft // 2:
            raise ValueError(
                f"hop must be between 1 and n_fft // 2 = {self.n_fft // 2} samples for perfect "
                f"reconstruction, not {self.hop}"
            )

    @property
    def freq(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    def count_frames(self, n_samples: int) -> int:
        """Count the frames of a waveform of ``n_samples`` samples.

        The last one is centred on the end or after it, so that two windows or more cover every
        sample.
        """
        return 1 - (-n_samples // self.hop)

    def frames(self, n_samples: int) -> Frames:
        """Return the grid of a waveform of ``n_samples`` samples."""
        time = self.count_frames(n_samples)
        return Frames(self.freq, time, self.sample_rate_hz, self.hop, self.n_fft)

    def forward(self, waves: Tensor) -> Tensor:
        """``(..., sample)`` real to ``(..., freq, time)`` complex, without normalisation."""
        window = make_window(self.n_fft, self.window).to(waves)
        # To a whole number of hops; an odd window extends one sample further on its right.
        missing = -waves.shape[-1] % self.hop + self.n_fft % 2
        whole = torch.nn.functional.pad(waves, (0, missing))
        flat = torch.stft(
            whole.reshape(-1, whole.shape[-1]), self.n_fft, self.hop, self.n_fft, window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        return flat.reshape(*whole.shape[:-1], *flat.shape[-2:])

    def inverse(self, values: Tensor, n_samples: int) -> Tensor:
        """``(..., freq, time)`` complex to ``(..., sample)`` real; frames past the end are cut."""
        window = make_window(self.n_fft, self.window).to(values.real)
        frames = values[..., : self.count_frames(n_samples)]
        flat = torch.istft(
            frames.reshape(-1, *frames.shape[-2:]), self.n_fft, self.hop, self.n_fft, window,
            center=True, length=n_samples,
        )  # fmt: skip
        return flat.reshape(*frames.shape[:-2], n_samples)

    def analyse(self, waves: np.ndarray | Tensor | Sequence[np.ndarray]) -> Spectrogram:
        """Transform one waveform ``(sample,)``, a batch, or a list of any lengths.

        Shorter recordings are padded with frames of zeros, which ``Spectrogram.mask`` marks as
        unobserved.
        """
        if isinstance(waves, (np.ndarray, Tensor)):
            waves = [waves] if waves.ndim <= 1 else list(waves)  # type: ignore[list-item]
        rows = [torch.as_tensor(np.asarray(row), dtype=torch.float32) for row in waves]
        if not rows or any(row.ndim != 1 or len(row) == 0 for row in rows):
            shapes = [tuple(row.shape) for row in rows]
            raise ValueError(
                f"expected waveforms of shape (sample,) with at least one sample, found {shapes}"
            )
        n_samples = tuple(len(row) for row in rows)
        batch = torch.zeros(len(rows), max(n_samples))
        for i, row in enumerate(rows):
            batch[i, : len(row)] = row
        values = self.forward(batch)
        counts = torch.tensor([self.count_frames(n) for n in n_samples])
        # The end of a shorter recording also leaks into frames past its last one.
        values = values * (torch.arange(values.shape[-1]) < counts[:, None, None])
        energy = (values.real.square() + values.imag.square()).sum((1, 2))
        scale = (energy / (counts * self.freq)).clamp_min(1e-20).sqrt()
        frames = self.frames(max(n_samples))
        return Spectrogram(values / scale[:, None, None], frames, n_samples, scale, self)

    def synthesise(self, spectrogram: Spectrogram) -> list[np.ndarray]:
        """Invert the STFT: one ``(sample,)`` float32 array per recording."""
        values = spectrogram.values if spectrogram.recorded is None else spectrogram.recorded
        values = values * spectrogram.scale[:, None, None]
        return [
            self.inverse(value, n).cpu().numpy().astype(np.float32)
            for value, n in zip(values, spectrogram.n_samples, strict=True)
        ]

    def draw_unit_noise(
        self, shape: Sequence[int], n_samples: int, generator: torch.Generator
    ) -> Tensor:
        """Draw the STFT of white noise with ``E|xi_ft|^2 = 1``, ``(*shape, freq, time)``.

        Neighbouring frames overlap, so their noise is correlated; drawing it in the time domain
        keeps that correlation, which independent draws per bin would lose.
        """
        white = torch.randn(
            *shape, n_samples + 2 * self.n_fft, generator=generator, device=generator.device
        )
        offset = self.n_fft // self.hop  # frames wholly inside the white noise
        values = self.forward(white)[..., offset : offset + self.count_frames(n_samples)]
        return values / make_window(self.n_fft, self.window).square().sum().sqrt().to(values.device)

    def draw_waveform(
        self, mean: Tensor, sd: Tensor, n_samples: int, generator: torch.Generator, scale: Any = 1.0
    ) -> Tensor:
        """Draw a waveform whose bins have a mean and a standard deviation, frames in accord.

        Parameters
        ----------
        mean, sd
            ``(freq, time)``; frames past the end of the waveform are not used.
        n_samples, generator
            Length of the waveform, and its random numbers.
        scale
            Factor on the waveform.
        """
        unit = self.draw_unit_noise((), n_samples, generator).to(sd.device)
        time = unit.shape[-1]
        return self.inverse((mean[:, :time] + sd[:, :time] * unit) * scale, n_samples)


@lru_cache(maxsize=8)
def make_window(n_fft: int, name: str) -> Tensor:
    """Build a periodic sine or Hann window, ``(sample,)`` float32."""
    hann = torch.hann_window(n_fft, periodic=True, dtype=torch.float64)
    return (hann.sqrt() if name == "sine" else hann).to(torch.float32)
