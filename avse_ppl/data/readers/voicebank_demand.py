"""VoiceBank-DEMAND: read sentences, each clean and in noise."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import require_clips, require_folder

DEV_SPEAKERS = frozenset({"p226", "p287"})
_LAYOUT = (
    "VoiceBank-DEMAND: <folder>/clean_trainset_28spk_wav/p226_001.wav, "
    "noisy_trainset_28spk_wav/, trainset_28spk_txt/, and the same with testset"
)


def read_voicebank_demand(folder: str | Path) -> list[Clip]:
    """List the VoiceBank-DEMAND clips, clean with their paired noisy recordings.

    The test set is the test split; the speakers p226 and p287 of the training set are the
    development split, as is usual.

    Parameters
    ----------
    folder : str or Path
        Holds ``clean_<set>_wav`` and ``noisy_<set>_wav`` (also with a suffix such as ``_16k``),
        and ``<set>_txt`` for transcripts.

    Returns
    -------
    list of Clip
        Sorted by path. Where the paired noisy recording is missing, `Clip.noisy` names the file
        that should be there, and `prepare` reports it.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips.

    References
    ----------
    Valentini-Botinhao, "Noisy speech database for training speech enhancement algorithms and TTS
    models", University of Edinburgh, 2017.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    paths = require_clips(folder.glob("clean_*set*_wav*/*.wav"), folder, _LAYOUT)
    return [make_clip(path) for path in paths]


def make_clip(path: Path) -> Clip:
    """Make the clip of a clean recording: its noisy one and transcript lie beside."""
    clean = path.parent
    name = clean.name.removeprefix("clean_")
    speaker = path.stem.split("_")[0]
    split = "test" if name.startswith("test") else "dev" if speaker in DEV_SPEAKERS else "train"
    text = clean.with_name(name.split("_wav")[0] + "_txt") / f"{path.stem}.txt"
    return Clip(
        path,
        "voicebank_demand",
        f"voicebank_{speaker}",
        split,
        noisy=clean.with_name(f"noisy_{name}") / path.name,
        transcript=text.read_text(encoding="utf-8").strip() if text.is_file() else "",
    )
