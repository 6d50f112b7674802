"""As many threads as a mixture can feed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avse_ppl.signal.stft import Spectrogram

_BINS_A_THREAD = 400_000  # 12 s at the default front end; below that a second thread only waits


@contextmanager
def limit_threads(mixture: Spectrogram) -> Iterator[None]:
    """Let torch use fewer CPU threads while a small mixture is inverted.

    One recording keeps one core busy. More threads would spin while they wait for each other, which
    costs CPU time, and wall time as well where others want the cores.
    """
    before = torch.get_num_threads()
    wanted = max(1, min(before, mixture.values.numel() // _BINS_A_THREAD))
    if wanted == before or mixture.values.device.type != "cpu":
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
