"""From the video of a speaker to mouth crops."""

from avse_ppl.video.lips import Lips
from avse_ppl.video.reading import read_lips

__all__ = ["Lips", "read_lips"]
