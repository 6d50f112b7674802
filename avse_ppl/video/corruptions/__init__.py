"""Known corruptions of mouth crops, to train and to judge what says how far to believe them."""

from avse_ppl.video.corruptions.base import CAUSES, Corrupted, CorruptionKind, label_clean_clip
from avse_ppl.video.corruptions.occlusion import mouth_weight
from avse_ppl.video.corruptions.registry import KINDS, corrupt, corruption_kinds

__all__ = [
    "CAUSES",
    "KINDS",
    "Corrupted",
    "CorruptionKind",
    "corrupt",
    "corruption_kinds",
    "label_clean_clip",
    "mouth_weight",
]
