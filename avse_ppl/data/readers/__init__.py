"""Corpora: which clips each has, by the folders and tables it was published in.

`CORPORA` is the one list of them: ``avse-ppl prepare`` and ``avse-ppl train`` read it. A further
corpus is a reader in a file of its own and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.avspeech import read_avspeech
from avse_ppl.data.readers.grid import read_grid
from avse_ppl.data.readers.lrs3 import read_lrs3
from avse_ppl.data.readers.lrw_ar import read_lrw_ar
from avse_ppl.data.readers.noise import read_noise
from avse_ppl.data.readers.ntcd_timit import read_ntcd_timit
from avse_ppl.data.readers.recordings import read_recordings
from avse_ppl.data.readers.speechocean762 import read_speechocean762
from avse_ppl.data.readers.tcd_timit import read_tcd_timit
from avse_ppl.data.readers.voicebank_demand import read_voicebank_demand
from avse_ppl.data.readers.wsj0_qut import read_wsj0_qut

UNSTATED_LICENCE = "as its authors state"


@dataclass(frozen=True)
class Corpus:
    """A corpus: its reader, and what help texts and model cards state of it.

    Parameters
    ----------
    reader
        Lists the clips of a folder.
    layout
        How the folder is laid out, in a line.
    split
        What is held out of training.
    licence
        Of the recordings, and so of weights trained on them.
    """

    reader: Callable[[Path], list[Clip]]
    layout: str
    split: str
    licence: str = UNSTATED_LICENCE

    @property
    def is_speech(self) -> bool:
        """Whether the corpus has speech."""
        return self.reader is not read_noise


CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        "grid": Corpus(
            read_grid,
            "*.mpg of one speaker, or s1/, s2/, ... at any depth",
            "last 100 clips of a speaker held out; all of a folder named *_unseen",
            "CC BY 4.0 (Cooke, Barker, Cunningham and Shao, 2006)",
        ),
        "tcd-timit": Corpus(
            read_tcd_timit,
            "volunteers/01M/Clips/straightcam/sa1.mp4",
            "17 volunteers held out, as the authors recommend",
        ),
        "ntcd-timit": Corpus(
            read_ntcd_timit,
            "Clean/volunteers/01M/straightcam/sa1.wav",
            "17 volunteers held out, as the corpus sorts them",
        ),
        "avspeech": Corpus(
            read_avspeech,
            "avspeech_train.csv and <video>_<start>-<end>.mp4",
            "one video in fifty held out, and those of the test table",
        ),
        "lrs3": Corpus(
            read_lrs3,
            "{pretrain,trainval,test}/<speaker>/00001.mp4",
            "one speaker in twenty held out, and those of test/",
        ),
        "lrw-ar": Corpus(
            read_lrw_ar,
            "*.mp4 at any depth",
            "five of the 35 speakers held out, told apart by their faces",
            "broadcast footage, research use only: so are weights trained on it",
        ),
        "speechocean762": Corpus(
            read_speechocean762,
            "list.tsv and <speaker>/<clip>.opus",
            "speakers whose number ends in 7 held out",
            "free for commercial and non-commercial use (Zhang et al., 2021)",
        ),
        "voicebank-demand": Corpus(
            read_voicebank_demand,
            "{clean,noisy}_trainset_28spk_wav/*.wav",
            "p226 and p287 held out, and the speakers of the test set",
        ),
        "wsj0-qut": Corpus(
            read_wsj0_qut,
            "WSJ0_SE/wsj0_si_tr_s/ and QUT_WSJ0/",
            "the speakers of si_dt_05 and si_et_05 held out",
        ),
        "recordings": Corpus(
            read_recordings,
            "<clip> or <speaker>/<clip>, clean speech of any origin",
            "one speaker in twenty held out, or one clip where nothing says who speaks",
        ),
        "noise": Corpus(
            read_noise,
            "<corpus>/<class>/<clip>.ogg or <corpus>/<class>.flac",
            "whole classes held out",
        ),
    }
)
NOISE_LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "esc10": "CC BY 3.0 (Piczak, 2015)",
        "kitchen20": "freesound clips, Creative Commons, stated clip by clip",
        "noisex": "NOISEX-92 and others, research use",
        "nonspeech100": "research use (Hu, 2004)",
        "speech_commands": "CC BY 4.0 (Warden, 2018)",
    }
)

__all__ = [
    "CORPORA",
    "NOISE_LICENCES",
    "UNSTATED_LICENCE",
    "Corpus",
    "read_avspeech",
    "read_grid",
    "read_lrs3",
    "read_lrw_ar",
    "read_noise",
    "read_ntcd_timit",
    "read_recordings",
    "read_speechocean762",
    "read_tcd_timit",
    "read_voicebank_demand",
    "read_wsj0_qut",
]
