"""From the video of a speaker to mouth crops."""

from avse_ppl.video.av_offset import estimate_offset
from avse_ppl.video.face_detector import FaceDetector, find_face_model, load_detector
from avse_ppl.video.lips import Lips
from avse_ppl.video.read_lips import read_lips

__all__ = [
    "FaceDetector",
    "Lips",
    "estimate_offset",
    "find_face_model",
    "load_detector",
    "read_lips",
]
