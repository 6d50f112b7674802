"""Occlusions: an occluder moves in front of the mouth, stays, and leaves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avse_ppl.video.corruptions import occluders
from avse_ppl.video.corruptions.base import Change, CorruptionContext
from avse_ppl.video.corruptions.tracker_columns import replace_crops
from avse_ppl.video.mouth_alignment import CROP_PX

_AWAY_PX = 14.0  # standard deviation of where it stays, from the centre of the mouth
_SWAY_PX = 3.0
_ARRIVES = 3  # frames, at most
_SMALLEST_PX, _LARGEST_PX = 8.0, 42.0
_SPREAD_PX = (16.0, 11.0)  # across and down: the mouth is 45 wide

Surface = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def mouth_weight() -> np.ndarray:
    r"""How much each pixel of a crop counts, ``(88, 88)`` with sum 1.

    .. math:: w_{ij} \propto \exp(-\tfrac12 ((j - c) / 16)^2 - \tfrac12 ((i - c) / 11)^2)

    A normal law around the centre of the crop, where the mouth is.

    Examples
    --------
    >>> weight = mouth_weight()
    >>> round(float(weight.sum()), 6), round(float(weight[33:55, 22:66].sum()), 2)
    (1.0, 0.57)
    """
    away = np.arange(CROP_PX) + 0.5 - CROP_PX / 2
    across, down = (np.exp(-0.5 * (away / spread) ** 2) for spread in _SPREAD_PX)
    weight = np.outer(down, across)
    return weight / weight.sum()


def covered(context: CorruptionContext, shape: Callable[[np.random.Generator], occluders.Shape],
            surface: Surface, source: np.ndarray | None = None) -> Change:  # fmt: skip
    r"""Hide the mouth behind a shape with a surface.

    .. math:: r_t = 1 - \sum_{ij} w_{ij} \alpha_{ijt}

    with w of `mouth_weight` and :math:`\alpha` the cover. Its size grows linearly with the
    severity; where it stays and how it sways is the same for all severities of one seed.
    """
    rng, weight = context.rng, mouth_weight()
    cover = shape(rng)
    first = context.lips.roi[context.start]
    picture = surface(rng, first if source is None else source)
    size = _SMALLEST_PX + (_LARGEST_PX - _SMALLEST_PX) * context.severity
    places = draw_path(context)
    rest = places[len(places) // 2]
    whole, surfaces = cover(rest, size), np.clip(picture, 0, 255)
    masks = np.stack([occluders.move_cover(whole, place - rest) for place in places])
    steps = np.round(places - rest).astype(int)
    shown = np.stack([np.roll(surfaces, tuple(step[::-1]), (0, 1)) for step in steps])
    roi = context.lips.roi[context.rows] * (1 - masks) + shown * masks
    hidden = (masks * weight).sum(axis=(1, 2))
    return Change(replace_crops(context, roi, hidden), np.clip(1 - hidden, 0.0, 1.0))


def draw_path(context: CorruptionContext) -> np.ndarray:
    """Where the thing is, ``(frame of the span, 2)``: it arrives, sways and leaves."""
    rng, count = context.rng, len(context)
    rest = CROP_PX / 2 + _AWAY_PX * rng.standard_normal(2)
    angle, phase, pace = rng.uniform(0, 2 * np.pi), rng.uniform(0, 6.3, 2), rng.uniform(0.02, 0.2)
    arrives = int(rng.integers(0, _ARRIVES + 1))
    frames = np.arange(count)
    sway = _SWAY_PX * np.sin(pace * frames[:, None] + phase)
    begins, ends = context.start > 0, context.stop < len(context.lips)
    out = np.zeros(count)
    if arrives and begins:
        out = np.maximum(out, 1 - (frames + 1) / (arrives + 1))
    if arrives and ends:
        out = np.maximum(out, 1 - (count - frames) / (arrives + 1))
    far = 1.6 * CROP_PX * np.array([np.cos(angle), np.sin(angle)])
    return rest + sway + out[:, None] * far


def hand(context: CorruptionContext) -> Change:
    """A hand as light as the face."""
    return covered(context, occluders.hand, occluders.skin)


def patch(context: CorruptionContext) -> Change:
    """A piece of this or another face, or of drawn texture, with a round or straight outline."""
    shape = occluders.box if context.rng.random() < 0.5 else occluders.blob
    surface = occluders.cut if context.rng.random() < 0.6 else occluders.rough
    if context.donor is None:
        return covered(context, shape, surface)
    row = int(context.rng.integers(len(context.donor)))
    return covered(context, shape, surface, context.donor.roi[row])


def bar(context: CorruptionContext) -> Change:
    """A flat bar across the video frame."""
    return covered(context, occluders.bar, occluders.flat)


def microphone(context: CorruptionContext) -> Change:
    """A microphone in a foam ball, from below."""
    return covered(context, occluders.microphone, occluders.foam)


def item(context: CorruptionContext) -> Change:
    """Something with straight edges and printed stripes."""
    return covered(context, occluders.polygon, occluders.stripes)


def scarf(context: CorruptionContext) -> Change:
    """Cloth over chin and mouth, from below."""
    return covered(context, occluders.scarf, occluders.woven)
