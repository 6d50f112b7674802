"""Readers: which clips a corpus has, by the folders and tables it was published in."""

from avse_ppl.corpora.readers.grid import read_grid
from avse_ppl.corpora.readers.lrw_ar import read_lrw_ar
from avse_ppl.corpora.readers.noise import read_noise
from avse_ppl.corpora.readers.speechocean762 import read_speechocean762

__all__ = ["read_grid", "read_lrw_ar", "read_noise", "read_speechocean762"]
