"""How well each prior knows speech, before there is any noise.

Resynthesis: the posterior mean of the latents given clean speech, decoded to power, with the phase
of the clean speech. Prior: expected log density of the latents of clean speech under the law that a
prior has of them, with the lips and without, nats a frame; higher is better. The encoder's own
posterior (by ear) is what the expectation is over, so that only the laws differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from common import SHARED, row
from torch import Tensor

from avse_ppl import LatentSpeech, load_speech
from avse_ppl.corpora import Clip, decode, read_grid, read_lrw_ar
from avse_ppl.models.latent_law import LatentLaw
from avse_ppl.video import Lips, load_detector, read_lips

DATA = SHARED / "data"
HEARING = ("vae", "rvae", "tcvae", "dkf", "srnn")
SEEING = ("av-cvae", "av-dkf")
_CLIPS = 12


def groups() -> dict[str, list[Clip]]:
    """Development clips: a known speaker, and two kinds of unknown ones."""
    s1 = [clip for clip in read_grid(DATA / "grid_s1") if clip.split == "dev"]
    readers = [clip for clip in read_lrw_ar(DATA / "lrw_ar") if clip.split == "dev"]
    return {
        "s1": s1[:: len(s1) // _CLIPS][:_CLIPS],
        "GRID, unseen": read_grid(DATA / "grid_unseen"),
        "LRW-AR, unseen": readers[:: len(readers) // _CLIPS][:_CLIPS],
    }


def resynthesis(prior: LatentSpeech, wave: np.ndarray) -> float:
    """SI-SDR of decoded power with the clean phase, dB."""
    mixture = prior.stft.analyse(wave)
    z = prior.encode(mixture.power)["speech.z"][0]
    magnitude = torch.exp(0.5 * prior.network.decode(z))
    estimate = prior.stft.inverse(
        magnitude * torch.exp(1j * torch.angle(mixture.values)), len(wave)
    )[0]
    clean = prior.stft.inverse(mixture.values, len(wave))[0]
    target = clean * (estimate @ clean) / (clean @ clean)
    return float(10 * torch.log10(target.square().sum() / (estimate - target).square().sum()))


def gain_of_lips(prior: LatentSpeech, wave: np.ndarray, lips: Lips) -> tuple[float, float]:
    """Expected log density of the latents without and with lips, nats a frame."""
    mixture = prior.stft.analyse(wave)
    mean, sd = prior.encode(mixture.power)["speech.z"]
    visual = prior.see(lips, mixture.frames)[None]
    draws = mean + sd * torch.randn(20, *mean.shape[1:], generator=torch.Generator().manual_seed(0))
    return tuple(_density(prior, draws, seen) for seen in (None, visual))  # type: ignore[return-value]


def _density(prior: LatentSpeech, draws: Tensor, visual: Tensor | None) -> float:
    law = LatentLaw(prior.network, visual, torch.Size(draws.shape[1:]))
    return float(law.log_prob(draws).sum(1).mean())


def main() -> list[str]:
    """Lines of the tables."""
    warnings.simplefilter("ignore", UserWarning)
    detector = load_detector(SHARED / "models" / "face" / "scrfd_500m_kps.onnx")
    clips = groups()
    waves = {who: [decode(clip) for clip in some] for who, some in clips.items()}
    lips = {
        who: [read_lips(clip.path, face_model=detector) for clip in some]
        for who, some in clips.items()
    }
    lines = [row("resynthesis, SI-SDR dB", *clips), row(*["---"] * (1 + len(clips)))]
    for name in HEARING:
        prior: Any = load_speech(name)
        cells = [np.mean([resynthesis(prior, wave) for wave in waves[who]]) for who in clips]
        lines.append(row(name, *(f"{cell:.2f}" for cell in cells)))
    lines += ["", *_laws(clips, waves, lips)]
    return lines


def _laws(clips: dict, waves: dict, lips: dict) -> Iterator[str]:
    yield row("prior, nats a frame: by ear / with lips", *clips)
    yield row(*["---"] * (1 + len(clips)))
    for name in SEEING:
        prior: Any = load_speech(name)
        cells = []
        for who in clips:
            pairs = [gain_of_lips(prior, w, s) for w, s in zip(waves[who], lips[who], strict=True)]
            heard, seen = np.mean(pairs, 0)
            cells.append(f"{heard:.2f} / {seen:.2f}")
        yield row(name, *cells)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n".join(main()))
