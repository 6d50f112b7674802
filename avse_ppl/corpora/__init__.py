"""Real corpora: which clips there are, a decoded cache of them, and mixing at a stated SNR."""

from avse_ppl.corpora.babble import babble
from avse_ppl.corpora.cache import SpeechCache, build_cache, load_cache
from avse_ppl.corpora.clips import DEV_NOISES, Clip
from avse_ppl.corpora.decoding import decode, highpass
from avse_ppl.corpora.manifest import (
    DEV_SNRS_DB,
    ManifestEntry,
    dev_manifest,
    load_manifest,
    realise,
    save_manifest,
)
from avse_ppl.corpora.mixing import Mixture, active_mask, active_power, mix
from avse_ppl.corpora.readers import (
    read_grid,
    read_lrw_ar,
    read_noise,
    read_speechocean762,
)

__all__ = [
    "DEV_NOISES",
    "DEV_SNRS_DB",
    "Clip",
    "ManifestEntry",
    "Mixture",
    "SpeechCache",
    "active_mask",
    "active_power",
    "babble",
    "build_cache",
    "decode",
    "dev_manifest",
    "highpass",
    "load_cache",
    "load_manifest",
    "mix",
    "read_grid",
    "read_lrw_ar",
    "read_noise",
    "read_speechocean762",
    "realise",
    "save_manifest",
]
