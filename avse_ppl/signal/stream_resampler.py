"""Resampling of a stream with a small and known delay."""

from __future__ import annotations

import math

import numpy as np

_CROSSINGS = 32  # zero crossings of the filter to either side, at the lower rate
_PASS = 0.95  # of the lower Nyquist frequency
_BETA = 8.0  # of the Kaiser window: 80 dB
_AT_ONCE = 4096  # outputs, which bounds the memory


class StreamResampler:
    r"""Polyphase windowed-sinc filter on blocks of any size.

    .. math:: y_m = \sum_k x_k \, g(m r_{in} / r_{out} - k), \quad
        g(t) = c \operatorname{sinc}(c t)\, w(t / W)

    with w a Kaiser window and c below the lower of the two Nyquist frequencies, of which the lowest
    0.86 pass unchanged. The stream resamplers of libraries, which filter in the frequency domain,
    return up to 0.1 s at once; this one looks W samples ahead, 2 ms where the lower rate is 16 kHz.
    The output is in time with the input.

    Parameters
    ----------
    rate_in_hz, rate_out_hz
        Whole numbers of Hz.
    channels
        Number of channels, which are filtered alike.

    References
    ----------
    Smith, "Digital audio resampling", CCRMA, 2002. Crochiere and Rabiner, *Multirate digital signal
    processing*, 1983.

    Examples
    --------
    >>> half = StreamResampler(32000, 16000)
    >>> wave = np.sin(np.arange(3200) * 0.1).astype("float32")[:, None]
    >>> found = np.concatenate([half.process(wave[:1000]), half.process(wave[1000:]), half.flush()])
    >>> found.shape, bool(np.abs(found - wave[::2])[100:-100].max() < 1e-3)
    ((1600, 1), True)
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int, channels: int = 1) -> None:
        common = math.gcd(rate_in_hz, rate_out_hz)
        self.up, self.down = rate_out_hz // common, rate_in_hz // common
        self.rate_in_hz, self.channels = rate_in_hz, channels
        narrow = min(1.0, rate_out_hz / rate_in_hz)
        self.ahead = math.ceil(_CROSSINGS / narrow)
        # Weights of the samples around each of the places between two of them.
        offset = np.arange(1 - self.ahead, self.ahead + 1)
        distance = offset - np.arange(self.up)[:, None] / self.up
        inside = np.clip(1.0 - (distance / self.ahead) ** 2, 0.0, None)
        taps = np.sinc(_PASS * narrow * distance) * np.i0(_BETA * np.sqrt(inside))
        self.taps = (taps / taps.sum(1, keepdims=True)).astype(np.float32)
        self.reset()

    @property
    def latency_s(self) -> float:
        """Most time from a sample's arrival to that of its successor at the other rate, seconds."""
        return (self.ahead + 1) / self.rate_in_hz

    def reset(self) -> None:
        """Forget what was heard."""
        self.buffer = np.zeros((self.ahead - 1, self.channels), np.float32)
        self.begin = 1 - self.ahead  # number of the first sample in the buffer
        self.taken = self.given = 0

    def process(self, block: np.ndarray) -> np.ndarray:
        """Output that a block ``(sample, channel)`` makes possible."""
        self.taken += len(block)
        return self.filter(block)

    def flush(self) -> np.ndarray:
        """Output up to the end of the stream, as if silence followed; then a new one begins."""
        due = -(-self.taken * self.up // self.down) - self.given
        rest = self.filter(np.zeros((self.ahead + 1, self.channels), np.float32))[:due]
        self.reset()
        return rest

    def filter(self, block: np.ndarray) -> np.ndarray:
        """Filter the outputs of which a block has the last input."""
        self.buffer = np.concatenate((self.buffer, block))
        # An output needs `ahead` inputs after the one before it.
        last = self.begin + len(self.buffer) - 1 - self.ahead
        stop = max(self.given, ((last + 1) * self.up - 1) // self.down + 1)
        if stop == self.given:
            return np.zeros((0, self.channels), np.float32)
        around = np.lib.stride_tricks.sliding_window_view(self.buffer, 2 * self.ahead, axis=0)
        parts = []
        for start in range(self.given, stop, _AT_ONCE):
            place = np.arange(start, min(stop, start + _AT_ONCE), dtype=np.int64) * self.down
            first = place // self.up + (1 - self.ahead) - self.begin
            parts.append(np.einsum("mck,mk->mc", around[first], self.taps[place % self.up]))
        self.given = stop
        kept = stop * self.down // self.up + (1 - self.ahead) - self.begin
        self.buffer, self.begin = self.buffer[kept:].copy(), self.begin + kept
        return np.concatenate(parts)
