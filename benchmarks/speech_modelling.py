"""How well each prior knows speech, before there is any noise.

Resynthesis: the posterior mean of the latents given clean speech, decoded to power, with the phase
of the clean speech. Prior: the evidence lower bound of clean speech (in noise of 60 dB below it) by
ear, and how much more it is with the lips, nats a frame: a bound on what the lips are worth for the
density of speech, since the same guide is fitted to both.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from common import SHARED, row

from avse_ppl import SVI, ComplexNormal, Frames, LatentSpeech, Scene, load_speech
from avse_ppl.data import Clip, decode, read_grid, read_lrw_ar
from avse_ppl.video import Lips, load_detector, read_lips

DATA = SHARED / "data"
HEARING = ("vae", "rvae", "tcvae", "dkf", "srnn")
SEEING = ("av-vae", "av-cvae", "av-dkf", "av-rvae")
_CLIPS = 8
_STEPS, _LAST = 150, 20


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


def bound(prior: LatentSpeech, waves: list[np.ndarray], lips: list[Lips] | None) -> np.ndarray:
    """Evidence lower bound of clean speech, nats a frame, one for each recording."""
    scene = Scene(prior, _quiet)
    found = SVI(steps=_STEPS, tolerance=0, draws=1, waveforms=False)(scene, waves, lips, seed=0)
    frames = [prior.stft.count_frames(len(wave)) for wave in waves]
    return found.trace["elbo"][-_LAST:].mean(0) / np.array(frames)


def _quiet(frames: Frames) -> ComplexNormal:
    return ComplexNormal(0.0, frames.number(1e-6))


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
    yield row("prior, nats a frame: audio-only / gain of lips", *clips)
    yield row(*["---"] * (1 + len(clips)))
    for name in SEEING:
        prior: Any = load_speech(name)
        cells = []
        for who in clips:
            heard, seen = (bound(prior, waves[who], seen) for seen in (None, lips[who]))
            gain = seen - heard
            cells.append(f"{heard.mean():.1f} / {gain.mean():+.2f} (lowest {gain.min():+.2f})")
        yield row(name, *cells)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n".join(main()))
