"""Enhancement of a stream: blocks of samples in, speech and its credible band out, at once.

No inference runs: a causal network states the law of speech in each frame when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.networks.tcn_stream import RunningLevel, TcnStream
from avse_ppl.models.predictors.network import NetworkPredictor, load_predictor
from avse_ppl.signal.audio import check_rate
from avse_ppl.signal.stft import make_window
from avse_ppl.signal.stream_resampler import StreamResampler

MAX_SAMPLE_RATE_HZ = 192000
_FRAMES = 32  # that are computed at once, at most
_LARGEST = 1e9  # of a sample, whose power is still a number in single precision


class StreamBlock(NamedTuple):
    """Enhanced samples, and the band that each is in with the stated probability.

    Parameters
    ----------
    speech
        Mean, ``(sample,)``, float32.
    lower, upper
        Ends of the band, ``(sample,)``, float32.
    """

    speech: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


class StreamEnhancer:
    r"""Enhance one channel of sound as it comes, by a causal network.

    Each frame of the STFT is enhanced when its last sample is there, from the frames up to it,
    divided by a running level (`TcnStream`, `RunningLevel`); memory does not grow. The law that the
    network states, :math:`s_{ft} \mid x \sim N_c(m_{ft} x_{ft}, e_{ft})`, gives each sample a
    normal distribution. Its variance is the power of the error, overlap-added with the squares of
    the synthesis windows,

    .. math:: v_n = \frac{\sum_t w_{n - tH}^2 \, \bar e_t}{\sum_t w_{n - tH}^2}, \qquad
        \bar e_t = \frac{1}{N \sum_k w_k^2} \sum_{f=0}^{N-1} e_{ft}

    and the band is the speech plus and minus a quantile of the normal distribution times
    :math:`\sqrt{v_n}`. What that approximates: bins are independent and complex Gaussian; the error
    of a frame is as loud at its begin as at its end; and frames that overlap err alike (if they
    erred independently, the variance would be half of it). A band holds for one sample: errors of
    neighbouring samples are not independent.

    Parameters
    ----------
    sample_rate_hz
        Of the blocks, and of what is returned. Where it is not the network's own, speech and band
        have only what lies below both Nyquist frequencies.
    predictor
        Network with its front end, the name of shipped weights, or a folder of weights; None: the
        shipped ones. Whether it is ``causal`` does not matter: in a stream it always is, and of one
        that sees the lips only the part is used that hears.
    probability
        Of the band.
    level
        Root mean square of the STFT of the recording, if it is known; None: a running estimate.

    Raises
    ------
    ValueError
        If a setting is out of range, or the windows of the network's front end do not overlap by
        half.
    TypeError
        If the rate or the predictor is of another type.

    References
    ----------
    Griffin and Lim, "Signal estimation from modified short-time Fourier transform", TASSP 1984.

    Examples
    --------
    >>> stream = StreamEnhancer(16000)
    >>> stream.latency_s
    0.032
    >>> noisy = np.random.default_rng(0).normal(size=1000).astype("float32")
    >>> [len(stream.process(block).speech) for block in np.split(noisy, 4)]
    [0, 0, 256, 256]
    >>> speech, lower, upper = stream.flush()
    >>> len(speech), bool((lower < upper).all())
    (488, True)
    """

    def __init__(
        self,
        sample_rate_hz: int,
        *,
        predictor: NetworkPredictor | str | Path | None = None,
        probability: float = 0.9,
        level: float | None = None,
    ) -> None:
        self.sample_rate_hz = check_rate(sample_rate_hz)
        if self.sample_rate_hz > MAX_SAMPLE_RATE_HZ:
            raise ValueError(
                f"expected sample_rate_hz to be at most {MAX_SAMPLE_RATE_HZ}, found "
                f"{sample_rate_hz}; resample the blocks first"
            )
        if not 0.0 < probability < 1.0:
            raise ValueError(f"probability must be between 0 and 1, not {probability!r}")
        if level is not None and not 0.0 < level < _LARGEST:
            raise ValueError(f"level must be a positive number, or None; not {level!r}")
        self.predictor, self.probability, self.level = choose_network(predictor), probability, level
        self.stft = self.predictor.stft
        self._quantile = NormalDist().inv_cdf(0.5 + 0.5 * probability)
        self._window = make_window(self.stft.n_fft, self.stft.window)
        halves = self._window.square().reshape(2, self.stft.hop)
        self._shares = halves / halves.sum(0)  # of the two frames that cover a sample
        self._synthesis = self._window.reshape(2, self.stft.hop) / halves.sum(0)
        self._energy = float(halves.sum())
        network = self.predictor.network
        self._network = TcnStream(network if isinstance(network, TcnNetwork) else network.trunk)
        self._running = RunningLevel(self.stft.hop / self.stft.sample_rate_hz)
        rates = (self.sample_rate_hz, self.stft.sample_rate_hz)
        self._resamplers = (
            None
            if rates[0] == rates[1]
            else (StreamResampler(*rates), StreamResampler(*rates[::-1], channels=2))
        )
        self.reset()

    @property
    def latency_s(self) -> float:
        """Most time from a sample to its enhanced version, without that of computing, seconds.

        A sample waits for the end of the second of the two windows that cover it: at most one
        window, 32 ms. At another rate than the network's, it waits for two filters as well.
        """
        window_s = self.stft.n_fft / self.stft.sample_rate_hz
        return window_s + sum(one.latency_s for one in self._resamplers or ())

    def reset(self) -> None:
        """Forget all so far; a new stream begins."""
        hop = self.stft.hop
        self._network.reset()
        self._running.reset()
        for resampler in self._resamplers or ():
            resampler.reset()
        # The first window is centred on the first sample; what lies before it is not returned.
        self._buffer = torch.zeros(hop)
        self._tail = torch.zeros(2, hop)
        self._skip = hop
        # Samples so far: of the stream, in and out; at the network's rate, in and out.
        self._taken = self._returned = self._heard = self._enhanced = 0

    def process(self, block: Any) -> StreamBlock:
        """Enhance a block ``(sample,)`` of any size, int16 or floating point.

        Returns
        -------
        StreamBlock
            What is finished: the samples that follow those of the last call, often none.

        Raises
        ------
        ValueError
            If the block has more than one axis, or samples that are not finite or above 1e9.
        TypeError
            If it is of another type.
        """
        wave = convert_block(block)
        self._taken += len(wave)
        if self._resamplers is None:
            return self.make_block(self.enhance(wave))
        into, back = self._resamplers
        found = self.enhance(into.process(wave[:, None])[:, 0])
        return self.make_block(back.process(found.T).T)

    def flush(self) -> StreamBlock:
        """Return the rest, as many samples in all as came in; then a new stream begins."""
        hop, due = self.stft.hop, self._taken - self._returned
        last = np.zeros(0, np.float32)
        if self._resamplers is not None:
            last = self._resamplers[0].flush()[:, 0]
        wanted = self._heard + len(last) - self._enhanced
        # To a whole number of hops, and the window that ends one hop later.
        zeros = np.zeros(-(self._heard + len(last)) % hop + hop, np.float32)
        found = self.enhance(np.concatenate((last, zeros)))[:, :wanted]
        if self._resamplers is not None:
            back = self._resamplers[1]
            found = np.concatenate((back.process(found.T), back.flush())).T
        rest = self.make_block(found[:, :due])
        self.reset()
        return rest

    def enhance(self, wave: np.ndarray) -> np.ndarray:
        """Mean and standard deviation ``(2, sample)``, as far as samples complete windows."""
        hop, n_fft = self.stft.hop, self.stft.n_fft
        self._heard += len(wave)
        buffer = torch.cat((self._buffer, torch.from_numpy(wave)))
        count = max(0, len(buffer) // hop - 1)
        parts = [torch.zeros(2, 0)]
        for begin in range(0, count, _FRAMES):
            end = min(count, begin + _FRAMES)
            parts.append(
                self.enhance_frames(buffer[begin * hop : (end + 1) * hop].unfold(0, n_fft, hop))
            )
        self._buffer = buffer[count * hop :].clone()
        found = torch.cat(parts, 1)
        skipped = min(self._skip, found.shape[1])
        self._skip -= skipped
        self._enhanced += found.shape[1] - skipped
        return found[:, skipped:].numpy()

    def enhance_frames(self, frames: Tensor) -> Tensor:
        """Mean and standard deviation ``(2, sample)`` of the first half of each window."""
        time, hop = len(frames), self.stft.hop
        with torch.inference_mode():
            values = torch.fft.rfft(frames * self._window).T
            level = (
                self._running.update(values)
                if self.level is None
                else torch.full((time,), float(self.level))
            )
            speech, error = self._network.step(values, level)
            waves = torch.fft.irfft(speech.T, n=self.stft.n_fft).reshape(time, 2, hop)
            # The sum over the bins of both halves of the spectrum, which share the two at its ends.
            power = (2.0 * error.sum(0) - error[0] - error[-1]) / (self.stft.n_fft * self._energy)
            variance = power[:, None, None] * self._shares
            both = torch.stack((waves * self._synthesis, variance), 1)  # (time, 2, half, sample)
            before = torch.cat((self._tail[None], both[:-1, :, 1]))
            self._tail = both[-1, :, 1].clone()
            mean, variance = (both[:, :, 0] + before).transpose(0, 1).flatten(1)
            return torch.stack((mean, variance.sqrt()))

    def make_block(self, found: np.ndarray) -> StreamBlock:
        """Samples and their band, from mean and standard deviation ``(2, sample)``."""
        self._returned += found.shape[1]
        speech, sd = found
        half = self._quantile * np.maximum(sd, 0.0)  # which resampling may take below 0
        return StreamBlock(speech.copy(), speech - half, speech + half)


def enhance_stream(
    blocks: Iterable[Any],
    sample_rate_hz: int,
    *,
    predictor: NetworkPredictor | str | Path | None = None,
    probability: float = 0.9,
    level: float | None = None,
) -> Iterator[StreamBlock]:
    """Enhance blocks ``(sample,)`` as they come; see `StreamEnhancer`.

    Settings are checked at the call, before the first block.

    Returns
    -------
    iterator of StreamBlock
        What is finished, where there is any; in all as many samples as came in.

    Examples
    --------
    >>> blocks = (np.zeros(160, dtype="int16") for _ in range(10))  # 10 ms each
    >>> sum(len(block.speech) for block in enhance_stream(blocks, sample_rate_hz=16000))
    1600
    """
    stream = StreamEnhancer(
        sample_rate_hz, predictor=predictor, probability=probability, level=level
    )

    def run() -> Iterator[StreamBlock]:
        for block in blocks:
            found = stream.process(block)
            if len(found.speech):
                yield found
        found = stream.flush()
        if len(found.speech):
            yield found

    return run()


def choose_network(predictor: NetworkPredictor | str | Path | None) -> NetworkPredictor:
    """Network of a stream, loaded if it is given by name or folder.

    Raises
    ------
    ValueError
        If its windows are not two hops long, or the weights are of another kind.
    TypeError
        If it is another kind of predictor.
    """
    if predictor is None:
        predictor = load_predictor()
    elif isinstance(predictor, (str, Path)):
        predictor = load_predictor(predictor)
    if not isinstance(predictor, NetworkPredictor):
        raise TypeError(
            f"expected the predictor of a stream to be a NetworkPredictor, the name of shipped "
            f"weights or a folder of weights, found {type(predictor).__name__}; other enhancers do "
            "not state the law of speech frame by frame, use enhance() with them"
        )
    stft = predictor.stft
    if stft.n_fft != 2 * stft.hop:
        raise ValueError(
            f"predictor {predictor.name!r} has windows of {stft.n_fft} samples and a hop of "
            f"{stft.hop}; a stream takes windows of two hops"
        )
    return predictor


def convert_block(block: Any) -> np.ndarray:
    """Block of a stream ``(sample,)`` as float32, int16 in units of its full scale.

    Raises
    ------
    ValueError
        If the block has more than one axis, or samples that are not finite or above 1e9.
    TypeError
        If it is of another type.

    Examples
    --------
    >>> convert_block(np.array([-32768, 16384], dtype="int16"))
    array([-1. ,  0.5], dtype=float32)
    """
    array = np.asarray(block)
    if array.ndim != 1:
        raise ValueError(
            f"expected a block of one channel, (sample,), found shape {array.shape}; enhance each "
            "channel by a stream of its own"
        )
    if array.size == 0:
        return np.zeros(0, np.float32)
    if array.dtype == np.int16:
        return array.astype(np.float32) / 32768.0
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(
            f"expected a block of int16 or of floating point, found {array.dtype}; divide other "
            "integers by their full scale"
        )
    if not bool(np.all(np.abs(array) <= _LARGEST)):
        raise ValueError(
            "the block holds samples that are NaN, infinite or above 1e9; expected finite ones, "
            "of a full scale of 1"
        )
    return array.astype(np.float32)
