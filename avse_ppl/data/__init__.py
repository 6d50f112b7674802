"""Corpora: their clips, caches of audio and mouth crops, mixing at a stated SNR."""

from avse_ppl.data.babble import make_babble
from avse_ppl.data.cache import LipsCache, SpeechCache, build_cache, load_cache, load_lips
from avse_ppl.data.clip_features import FeatureSettings
from avse_ppl.data.clips import DEV_NOISES, Clip, check_disjoint
from avse_ppl.data.decoding import decode, highpass
from avse_ppl.data.example_files import get_example_path
from avse_ppl.data.manifest import (
    DEV_SNRS_DB,
    ManifestEntry,
    load_manifest,
    make_dev_manifest,
    make_manifest,
    realise,
    save_manifest,
)
from avse_ppl.data.mixing import Mixture, active_mask, active_power, mix
from avse_ppl.data.prepare import Prepared, prepare
from avse_ppl.data.readers import (
    read_avspeech,
    read_grid,
    read_lrs3,
    read_lrw_ar,
    read_noise,
    read_ntcd_timit,
    read_speechocean762,
    read_tcd_timit,
    read_voicebank_demand,
    read_wsj0_qut,
)
from avse_ppl.data.readers.ntcd_timit import read_roi

__all__ = [
    "DEV_NOISES",
    "DEV_SNRS_DB",
    "Clip",
    "FeatureSettings",
    "LipsCache",
    "ManifestEntry",
    "Mixture",
    "Prepared",
    "SpeechCache",
    "active_mask",
    "active_power",
    "build_cache",
    "check_disjoint",
    "decode",
    "get_example_path",
    "highpass",
    "load_cache",
    "load_lips",
    "load_manifest",
    "make_babble",
    "make_dev_manifest",
    "make_manifest",
    "mix",
    "prepare",
    "read_avspeech",
    "read_grid",
    "read_lrs3",
    "read_lrw_ar",
    "read_noise",
    "read_ntcd_timit",
    "read_roi",
    "read_speechocean762",
    "read_tcd_timit",
    "read_voicebank_demand",
    "read_wsj0_qut",
    "realise",
    "save_manifest",
]
