"""Readers: which clips a corpus has, by the folders and tables it was published in."""

from avse_ppl.data.readers.avspeech import read_avspeech
from avse_ppl.data.readers.grid import read_grid
from avse_ppl.data.readers.lrs3 import read_lrs3
from avse_ppl.data.readers.lrw_ar import read_lrw_ar
from avse_ppl.data.readers.noise import read_noise
from avse_ppl.data.readers.ntcd_timit import read_ntcd_timit
from avse_ppl.data.readers.speechocean762 import read_speechocean762
from avse_ppl.data.readers.tcd_timit import read_tcd_timit
from avse_ppl.data.readers.voicebank_demand import read_voicebank_demand
from avse_ppl.data.readers.wsj0_qut import read_wsj0_qut

__all__ = [
    "read_avspeech",
    "read_grid",
    "read_lrs3",
    "read_lrw_ar",
    "read_noise",
    "read_ntcd_timit",
    "read_speechocean762",
    "read_tcd_timit",
    "read_voicebank_demand",
    "read_wsj0_qut",
]
