"""WSJ0-QUT: read news, clean and in the noises of QUT."""

from __future__ import annotations

import re
from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import is_media, require_clips, require_folder

_SPLITS = {"si_tr_s": "train", "si_dt_05": "dev", "si_et_05": "test"}
_LAYOUT = (
    "WSJ0-QUT: <folder>/WSJ0_SE/wsj0_si_tr_s/011/011a0101.wav (also si_dt_05, si_et_05) and, for "
    "the noisy recordings, <folder>/QUT_WSJ0/ or <folder>/noisy/ with files of the same names"
)


def read_wsj0_qut(folder: str | Path) -> list[Clip]:
    """List the WSJ0-QUT clips: each noisy recording with its paired clean recording.

    ``si_tr_s`` is the training, ``si_dt_05`` the development and ``si_et_05`` the test split; they
    have no speaker in common.

    Parameters
    ----------
    folder : str or Path
        Holds, at any depth, ``si_tr_s``, ``si_dt_05`` and ``si_et_05`` (also ``wsj0_si_tr_s``)
        with clean speech as WAV, and a folder with ``qut`` or ``noisy`` in its name with noisy
        speech. A noisy file is named as the clean one, or its name has that of the clean one in
        it (``011a0101_CAFE_5.wav``).

    Returns
    -------
    list of Clip
        One for each noisy recording, or for each clean one where nothing is noisy; sorted by
        path.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clean speech, or noisy speech but none with a paired clean recording.

    References
    ----------
    Garofolo et al., "CSR-I (WSJ0) complete", LDC93S6A, 1993. Dean et al., "The QUT-NOISE-TIMIT
    corpus for the evaluation of voice activity detection algorithms", Interspeech 2010. Leglaive
    et al., "A recurrent variational autoencoder for speech enhancement", ICASSP 2020.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    paths = sorted(path for path in folder.rglob("*") if is_media(path))
    noisy = [path for path in paths if is_noisy(path, folder)]
    clean = {p.stem: p for p in paths if not is_noisy(p, folder) and find_split(p)}
    require_clips(clean.values(), folder, _LAYOUT)
    pairs: list[tuple[Path, Path | None]] = [(path, None) for path in clean.values()]
    if noisy:
        pairs = []
        for path in noisy:
            words = [path.stem, *re.split(r"[^0-9A-Za-z]+", path.stem)]
            stem = next((word for word in words if word in clean), None)
            pairs += [] if stem is None else [(clean[stem], path)]
        require_clips((path for _, path in pairs if path), folder, _LAYOUT)
    return [
        Clip(
            path,
            "wsj0_qut",
            f"wsj0_{path.stem[:3]}",
            find_split(path) or "train",
            noisy=paired,
        )
        for path, paired in pairs
    ]


def is_noisy(path: Path, folder: Path) -> bool:
    """Whether a recording is a noisy one, by the folders that it lies in."""
    above = path.relative_to(folder).parts[:-1]
    return any("noisy" in part.lower() or "qut" in part.lower() for part in above)


def find_split(path: Path) -> str | None:
    """Find the split of a clean recording, by the folders that it lies in."""
    names = (part.removeprefix("wsj0_") for part in path.parts)
    return next((_SPLITS[name] for name in names if name in _SPLITS), None)
