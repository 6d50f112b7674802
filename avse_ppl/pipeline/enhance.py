"""The whole way in one call: recording in, enhanced speech and posterior out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.inference.core.setup import check_seeds
from avse_ppl.inference.core.video import check_audio_visual
from avse_ppl.models.scene import NoiseModel, Scene, SpeechPrior, VisualReliability
from avse_ppl.models.validation import name_of
from avse_ppl.pipeline.batches import Chunk, group_chunks, split_recordings
from avse_ppl.pipeline.catalog import (
    default_inference,
    resolve_inference,
    resolve_noise,
    resolve_reliability,
    resolve_speech,
)
from avse_ppl.pipeline.video_input import VideoOptions, prepare_all_lips
from avse_ppl.posterior.chunks import crossfade_chunks, crossfade_waves, stack_channels
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio, AudioLike, as_audio, check_audio, convert_rate

if TYPE_CHECKING:
    from avse_ppl.video import Lips

_DRAWS_SAMPLES = 5e7  # waveform samples kept in the draws of one recording


@dataclass(frozen=True)
class Enhanced:
    """One recording, enhanced.

    Parameters
    ----------
    speech
        Posterior mean waveform, at the prior's rate, with the channels of the input.
    posterior
        The posterior; each channel that is not silent is one of its recordings. None where it was
        not asked for, or the recording was silent.
    cost
        ``wall_s``, ``cpu_s`` and ``real_time_factor`` (wall seconds a second of audio) of the
        batch that this recording was enhanced in, its share by length.
    kind
        ``Posterior.kind``, also where the posterior was not kept; None where there was nothing to
        infer.
    warnings
        What the routine found wrong with its own result, see ``Posterior.warnings``; also where
        the posterior was not kept.
    """

    speech: Audio
    posterior: Posterior | None
    cost: dict[str, float]
    kind: str | None = None
    warnings: tuple[str, ...] = ()


def enhance(
    noisy: AudioLike,
    video: Any = None,
    *,
    speech: str | Path | SpeechPrior | None = None,
    noise: str | NoiseModel = "nmf",
    inference: str | Callable[..., Posterior] | None = None,
    seed: int = 0,
    device: str = "auto",
    sample_rate_hz: int | None = None,
    draws: int = 50,
    keep_posterior: bool = True,
    recalibrate: bool = False,
    viewing: VideoOptions | None = None,
    reliability: str | VisualReliability | None = None,
) -> Enhanced:
    """Enhance one recording.

    Parameters
    ----------
    noisy
        Path, the bytes of a file, an ``Audio``, or an array ``(sample,)`` or
        ``(channel, sample)`` with its ``sample_rate_hz``. Recordings at another rate than the
        prior's are resampled, with a warning. Channels are enhanced separately.
    video
        Of the speaker's face: a path (of the recording itself, if it is a video), the bytes of a
        file, or `avse_ppl.video.Lips`.
    speech
        ``"tcvae"``, ``"av-dkf"``, another name (see ``avse-ppl models``), a folder of weights, or a
        prior. None: ``"tcvae"``, or with video ``"av-dkf"``.
    noise
        A name or a sum of them, as in ``"nmf(8)+hum(50)"`` (see
        `avse_ppl.pipeline.catalog.NOISES`), ``"module:function"``, or a function of frames.
    inference
        A name, such as ``"svi"``, ``"em-langevin"`` or ``"numpyro-nuts"`` (see
        `avse_ppl.pipeline.catalog.ROUTINES`), or a configured routine (which then keeps its own
        ``device`` and ``draws``). None: ``"svi"``, or ``"guided"`` where the prior has no density.
    seed
        Of everything random.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    sample_rate_hz
        Rate of an array, Hz.
    draws
        Draws in the posterior.
    keep_posterior
        False saves the time and memory of drawing waveforms.
    recalibrate
        Whether to scale variance and draws so that credible intervals cover as they state, see
        ``Posterior.recalibrated``. The enhanced speech is the same.
    viewing
        How the video is looked at, see `avse_ppl.pipeline.video_input.Viewing`.
    reliability
        How far the video is believed, frame by frame: ``"markov"``, ``"score"``, ``"beta"``,
        ``"always"``, ``"never"``, or a function, see `avse_ppl.models.visual.reliability`. None:
        ``"score"``.

    Returns
    -------
    Enhanced
        Speech, posterior, cost. Recordings over 15 s are enhanced in overlapping chunks, each
        with noise of its own, and cross-faded.

    Raises
    ------
    ValueError
        If the recording is not usable, a name is unknown, or CUDA is asked for and absent.

    Examples
    --------
    >>> import numpy as np
    >>> noisy = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> enhanced = enhance(noisy, sample_rate_hz=16000, speech="gaussian", noise="stationary")
    >>> enhanced.speech.samples.shape, enhanced.posterior.kind
    ((8000,), 'variational')
    """
    audio = as_audio(noisy, sample_rate_hz)
    return enhance_batch(
        [audio], video, speech=speech, noise=noise, inference=inference, seed=seed, device=device,
        draws=draws, keep_posterior=keep_posterior, recalibrate=recalibrate, viewing=viewing,
        reliability=reliability,
    )[0]  # fmt: skip


def enhance_batch(
    recordings: Sequence[Audio],
    video: Any = None,
    *,
    speech: str | Path | SpeechPrior | None = None,
    noise: str | NoiseModel = "nmf",
    inference: str | Callable[..., Posterior] | None = None,
    seed: int = 0,
    device: str = "auto",
    draws: int = 50,
    keep_posterior: bool = True,
    recalibrate: bool = False,
    viewing: VideoOptions | None = None,
    reliability: str | VisualReliability | None = None,
) -> list[Enhanced]:
    """Enhance several recordings at once; see `enhance`.

    Recordings of similar length are inverted together, in batches of about a minute of audio.
    ``video`` is a list, one for each recording, with None for those without.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(size=(2, 8000)).astype("float32")
    >>> batch = [Audio(row, 16000) for row in noise]
    >>> len(enhance_batch(batch, speech="gaussian", noise="stationary", draws=2))
    2
    """
    [seed] = check_seeds([seed])
    prior = resolve_speech(speech, sees=video is not None)
    believed = None if video is None else resolve_reliability(reliability)
    scene = Scene(prior, resolve_noise(noise), believed)
    check_audio_visual(scene.speech, video)
    inference = inference or default_inference(prior)
    if recalibrate:
        _check_recalibration(scene, inference, keep_posterior)
    stft = scene.stft
    audios = [
        check_audio(convert_rate(audio, stft.sample_rate_hz), min_samples=stft.n_fft)
        for audio in recordings
    ]
    lips = prepare_all_lips(video, audios, viewing or VideoOptions())
    if keep_posterior and isinstance(inference, str):
        draws = _draws_that_fit(draws, max((audio.n_samples for audio in audios), default=0))
    routine = resolve_inference(inference, device=device, draws=draws, waveforms=keep_posterior)
    pieces = [
        piece for i, audio in enumerate(audios) for piece in split_recordings(i, audio, stft.hop)
    ]
    results: dict[Chunk, Any] = {}
    costs = np.zeros((len(audios), 2))
    kinds: list[str | None] = [None] * len(audios)
    said: list[list[str]] = [[] for _ in audios]
    for batch in group_chunks(pieces):
        clock = np.array([time.perf_counter(), time.process_time()])
        waves = [audios[p.recording].channels()[p.channel].samples[p.span] for p in batch]
        # Chunk by chunk, so that a recording's result does not depend on what else is enhanced.
        seeds = [seed + piece.number for piece in batch]
        seen = [_span_of(lips[p.recording], p, stft.sample_rate_hz) for p in batch]
        shown = seen if any(one is not None for one in seen) else None
        posterior = routine(scene, waves, shown, seed=seeds)
        posterior = posterior.recalibrated(seed=seed) if recalibrate else posterior
        for row, piece in enumerate(batch):
            one = posterior.select(row)
            results[piece] = one if keep_posterior else one.enhance()
            said[piece.recording] += one.warnings
        spent = np.array([time.perf_counter(), time.process_time()]) - clock
        total = sum(piece.n_samples for piece in batch)
        for piece in batch:
            costs[piece.recording] += spent * piece.n_samples / total
            kinds[piece.recording] = posterior.kind
    return [
        replace(_finished(i, audio, results, costs[i], kinds[i]), warnings=_once(said[i]))
        for i, audio in enumerate(audios)
    ]


def _check_recalibration(scene: Scene, inference: object, keep_posterior: bool) -> None:
    """Refuse before the work starts what the posterior would refuse after it."""
    if not keep_posterior:
        raise ValueError("recalibrate changes the posterior only; keep the posterior, too")
    if isinstance(inference, str):
        from avse_ppl.posterior.recalibration import find_shipped

        names = {"speech": name_of(scene.speech), "noise": name_of(scene.noise)}
        find_shipped(routine=inference, **names)


def _span_of(lips: Lips | None, piece: Chunk, rate_hz: int) -> Lips | None:
    """Lips on the clock of a piece."""
    return lips if lips is None or piece.begin == 0 else lips.shifted(-piece.begin / rate_hz)


def _once(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _finished(
    index: int, audio: Audio, results: Mapping[Chunk, Any], cost: np.ndarray, kind: str | None
) -> Enhanced:
    """Put the pieces of one recording together."""
    parts = {piece: result for piece, result in results.items() if piece.recording == index}
    shape = (audio.n_channels, audio.n_samples)
    speech, posteriors = np.zeros(shape, np.float32), []
    for c, channel in enumerate(audio.channels()):
        mine = sorted((p for p in parts if p.channel == c), key=lambda p: p.begin)
        spans = [(p.begin, p.end) for p in mine]
        if not mine:
            speech[c] = channel.samples  # silent: nothing to infer
        elif isinstance(parts[mine[0]], Posterior):
            posteriors.append(crossfade_chunks([parts[p] for p in mine], spans, audio.n_samples))
            speech[c] = posteriors[-1].enhance()
        else:
            speech[c] = crossfade_waves([parts[p] for p in mine], spans, audio.n_samples)
    posterior = stack_channels(posteriors) if posteriors else None
    samples = speech if audio.samples.ndim == 2 else speech[0]
    wall_s, cpu_s = cost.tolist()
    costs = {"wall_s": wall_s, "cpu_s": cpu_s, "real_time_factor": wall_s / audio.duration_s}
    return Enhanced(Audio(samples, audio.sample_rate_hz), posterior, costs, kind)


def _draws_that_fit(draws: int, n_samples: int) -> int:
    """Fewer draws of a very long recording, and a warning that says so."""
    fit = max(2, int(_DRAWS_SAMPLES // max(1, n_samples)))
    if draws <= fit:
        return draws
    warnings.warn(
        f"kept {fit} draws instead of {draws}: the recording has {n_samples} samples, and its "
        "draws are to fit into memory",
        UserWarning,
        stacklevel=3,
    )
    return fit
