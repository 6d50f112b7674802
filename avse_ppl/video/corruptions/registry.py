"""The corruptions by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from avse_ppl.video.corruptions import degradation, geometry, occlusion, timing
from avse_ppl.video.corruptions.base import (
    Corrupted,
    CorruptionContext,
    CorruptionKind,
    Family,
    combine_labels,
    label_clean_clip,
)
from avse_ppl.video.lips import Lips

_POOR, _SYNC, _TURNED = "blurred or dark", "out of sync", "non-frontal"

KINDS: Mapping[str, CorruptionKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            CorruptionKind("hand", "trained", "occluded", occlusion.hand),
            CorruptionKind("patch", "trained", "occluded", occlusion.patch),
            CorruptionKind("bar", "trained", "occluded", occlusion.bar),
            CorruptionKind("blur", "trained", _POOR, degradation.blur),
            CorruptionKind("noise", "trained", _POOR, degradation.noise),
            CorruptionKind("dark", "trained", _POOR, degradation.dark),
            CorruptionKind("compression", "trained", _POOR, degradation.compression),
            CorruptionKind("yaw", "trained", _TURNED, geometry.yaw),
            CorruptionKind("roll", "trained", _TURNED, geometry.roll),
            CorruptionKind("drift", "trained", "missing", geometry.drift, of_tracker=True),
            CorruptionKind("freeze", "trained", "frozen", timing.freeze, timing.frozen_frames),
            CorruptionKind("drop", "trained", "missing", timing.drop, timing.dropped_frames),
            CorruptionKind("shift", "trained", _SYNC, timing.shift, timing.shifted_frames),
            CorruptionKind(
                "other-speaker", "trained", _SYNC, timing.other_speaker, timing.donor_frames, True
            ),
            CorruptionKind("microphone", "held out", "occluded", occlusion.microphone),
            CorruptionKind("item", "held out", "occluded", occlusion.item),
            CorruptionKind("scarf", "held out", "occluded", occlusion.scarf),
            CorruptionKind("motion-blur", "held out", _POOR, degradation.motion_blur),
            CorruptionKind("pixelation", "held out", _POOR, degradation.pixelation),
            CorruptionKind("dead-pixels", "held out", _POOR, degradation.dead_pixels),
            CorruptionKind("pitch", "held out", _TURNED, geometry.pitch),
            CorruptionKind("zoom", "held out", "missing", geometry.zoom, of_tracker=True),
            CorruptionKind(
                "flicker", "held out", "missing", timing.flicker, timing.flickering_frames
            ),
            CorruptionKind(
                "stutter", "held out", "frozen", timing.stutter, timing.stuttered_frames
            ),
            CorruptionKind(
                "backwards", "held out", _SYNC, timing.backwards, timing.backward_frames
            ),
        )
    }
)


def corruption_kinds(family: Family | None = None) -> list[str]:
    """List the names of one family, or of all.

    Examples
    --------
    >>> corruption_kinds("held out")[:3]
    ['microphone', 'item', 'scarf']
    """
    return [kind.name for kind in KINDS.values() if family in (None, kind.family)]


def corrupt(
    lips: Lips | Corrupted,
    kind: str,
    *,
    severity: float = 1.0,
    span: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
    donor: Lips | None = None,
) -> Corrupted:
    """Corrupt mouth crops in a known way.

    Parameters
    ----------
    lips
        Crops as tracked, or corrupted before: reliabilities are multiplied.
    kind
        One of `corruption_kinds`.
    severity
        From 0, hardly noticed, to 1, nothing left. Of one seed, reliability never rises with it.
    span
        First frame and the one after the last; None for the whole clip.
    seed
        Of everything random.
    donor
        Another clip, for kinds that take video frames from one.

    Returns
    -------
    Corrupted
        Crops, reliability and cause of each frame.

    Raises
    ------
    ValueError
        If the kind is unknown or lacks its donor, the severity is not in [0, 1], or the span
        is not one of the clip.

    Examples
    --------
    >>> clip = Lips.from_crops(np.full((20, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> done = corrupt(clip, "freeze", span=(5, 8))
    >>> done.reliability[4:9].tolist(), done.cause[5].item()
    ([1.0, 0.0, 0.0, 0.0, 1.0], 'frozen')
    """
    if kind not in KINDS:
        from avse_ppl.models.validation import unknown_name

        raise unknown_name("corruption", kind, list(KINDS))
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"expected a severity from 0 to 1, found {severity}")
    before = lips if isinstance(lips, Corrupted) else label_clean_clip(lips)
    count = len(before.lips)
    start, stop = (0, count) if span is None else span
    if not 0 <= start < stop <= count:
        raise ValueError(
            f"expected a span within the {count} frames of the clip that ends after it starts, "
            f"found {start} to {stop}"
        )
    rng = np.random.default_rng(seed)
    context = CorruptionContext(before.lips, start, stop, float(severity), rng, donor)
    return combine_labels(KINDS[kind], before, context, KINDS[kind].apply(context))
