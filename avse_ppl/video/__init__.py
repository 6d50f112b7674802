"""From the video of a speaker to mouth crops, and to their quality scores."""

from typing import TYPE_CHECKING, Any

from avse_ppl.video.av_offset import estimate_offset
from avse_ppl.video.face_detector import FaceDetector, find_face_model, load_detector
from avse_ppl.video.lips import Lips
from avse_ppl.video.read_lips import read_lips

if TYPE_CHECKING:
    from avse_ppl.video.quality.score import score_lips

__all__ = [
    "FaceDetector",
    "Lips",
    "estimate_offset",
    "find_face_model",
    "load_detector",
    "read_lips",
    "score_lips",
]


def __getattr__(name: str) -> Any:
    """Import `score_lips` on first use: it needs the reliability network, which needs lips."""
    if name == "score_lips":
        from avse_ppl.video.quality.score import score_lips

        return score_lips
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
