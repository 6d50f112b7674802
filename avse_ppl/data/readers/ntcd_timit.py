"""NTCD-TIMIT: the sentences of TCD-TIMIT in noise, with mouth crops instead of video."""

from __future__ import annotations

import errno
from pathlib import Path
from textwrap import shorten

import numpy as np

from avse_ppl.data.array_files import map_array
from avse_ppl.data.clips import SPLITS, Clip
from avse_ppl.data.readers.folders import require_clips, require_folder
from avse_ppl.data.readers.tcd_timit import SETS, find_speaker, find_split
from avse_ppl.utils.hdf5 import check_hdf5_sizes

NOISES = ("Babble", "Cafe", "Car", "LR", "Street", "White")
SNRS_DB = (-5, 0, 5, 10, 15, 20)
_CLEAN = ("clean", "audio_clean")
ROI_HZ = 30.0
_ROI_PX = 67
_LARGEST = 1e4  # of a pixel: interpolation overshoots a little
_ROI_SUFFIXES = (".mat", ".npy")
_LAYOUT = (
    "NTCD-TIMIT: <folder>/Clean/volunteers/01M/straightcam/sa1.wav, "
    "<folder>/Babble/-5/volunteers/01M/straightcam/sa1.wav, <folder>/matlab_raw/train/01M/sa1.mat"
)


def read_ntcd_timit(
    folder: str | Path, noise: str | None = None, snr_db: int | None = None
) -> list[Clip]:
    """List the NTCD-TIMIT clips: clean, paired with recordings in one noise if it is named.

    Split by speaker: 39 volunteers and the lipspeakers train, 8 are the development and 9 the test
    split, which is how the corpus sorts its mouth crops.

    Parameters
    ----------
    folder : str or Path
        Holds ``Clean/`` and a folder for each noise, at any depth below it, and, for the mouth
        crops, ``.mat`` or ``.npy`` files named ``<clip>`` or ``<clip>Raw`` in a folder of their
        speaker. The crops are 67 x 67 at 30 frames a second; `read_roi` reads them.
    noise : str or None
        Babble, Cafe, Car, LR (living room), Street or White; None for clean speech only.
    snr_db : int or None
        -5, 0, 5, 10, 15 or 20; needed with a noise.

    Returns
    -------
    list of Clip
        Sorted by speaker and clip. With a noise, only those that have the paired noisy recording.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no such clips, or there is no such noise or ratio.

    References
    ----------
    Abdelaziz, "NTCD-TIMIT: a new database and baseline for noise-robust audio-visual speech
    recognition", Interspeech 2017.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    check_noise(noise, snr_db)

    # Clean and noisy recordings, by speaker and clip.
    clean, paired = {}, {}
    for path in folder.rglob("*.wav"):
        if not path.is_file():
            continue
        parts = path.relative_to(folder).parts[:-1]
        key = find_speaker(path), path.stem
        if any(part.lower() in _CLEAN for part in parts):
            clean[key] = path
        if noise in parts and str(snr_db) in parts[parts.index(noise) + 1 :]:
            paired[key] = path

    # Mouth crops, by speaker and clip; ``<split>/<speaker>/<clip>.mat`` says the split, too.
    rois, splits = {}, {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _ROI_SUFFIXES:
            flat = path.parent.name != "straightcam" and not any(p in SETS for p in path.parts)
            speaker = path.parent.name if flat else find_speaker(path)
            rois[speaker, path.stem.removesuffix("Raw")] = path
            if path.parents[1].name in SPLITS:
                splits[speaker] = path.parents[1].name

    keys = sorted(clean.keys() & paired.keys() if noise else clean.keys())
    layout = _LAYOUT if noise is None else f"{_LAYOUT}, with {noise} at {snr_db} dB"
    require_clips(keys, folder, layout)
    return [
        Clip(
            clean[key],
            "ntcd_timit",
            f"tcd_timit_{key[0]}",
            splits.get(key[0]) or find_split(key[0]),
            roi=rois.get(key),
            noisy=paired.get(key),
        )
        for key in keys
    ]


def check_noise(noise: str | None, snr_db: int | None) -> None:
    """Check that there is such a noise at such a ratio, or none of both."""
    if noise is not None and noise not in NOISES:
        raise ValueError(f"no noise {noise!r} in NTCD-TIMIT; expected one of {', '.join(NOISES)}")
    if (noise is None) != (snr_db is None) or (snr_db is not None and snr_db not in SNRS_DB):
        raise ValueError(
            f"noise is {noise!r} and snr_db is {snr_db}; expected both or none, with snr_db one "
            f"of {', '.join(map(str, SNRS_DB))}"
        )


def read_roi(path: str | Path) -> np.ndarray:
    """Read the mouth crops of one NTCD-TIMIT clip.

    Parameters
    ----------
    path : str or Path
        ``.mat`` (MATLAB 7.3) or ``.npy`` with one array, ``(4489, frame)`` or ``(frame, 4489)``:
        each frame 67 x 67 pixels, column by column, in [0, 1] or [0, 255].

    Returns
    -------
    numpy.ndarray
        Shape ``(frame, 67, 67)``, uint8, upright; 30 frames a second.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mouth crops in {path}; copy the corpus again")
    pixels = (
        map_array(path, None, "copy the corpus again")
        if path.suffix.lower() == ".npy"
        else read_mat(path)
    )
    if pixels.ndim != 2 or _ROI_PX**2 not in pixels.shape:
        raise ValueError(
            f"{path} holds an array of the shape {pixels.shape}; expected (frame, {_ROI_PX**2}) or "
            f"({_ROI_PX**2}, frame), which are crops of {_ROI_PX} x {_ROI_PX} pixels"
        )
    pixels = pixels if pixels.shape[1] == _ROI_PX**2 else pixels.T
    if pixels.dtype.kind not in "fiub" or not (np.abs(pixels) <= _LARGEST).all():
        raise ValueError(
            f"{path} has NaN or infinite pixels, or others that are no numbers between 0 and 255; "
            "copy the corpus again"
        )
    scale = 255.0 if pixels.size and pixels.max() <= 1.0 else 1.0
    upright = pixels.reshape(-1, _ROI_PX, _ROI_PX).transpose(0, 2, 1)  # MATLAB goes down columns
    return np.clip(np.round(upright * scale), 0, 255).astype(np.uint8)


def read_mat(path: Path) -> np.ndarray:
    """Read the only array of a file of MATLAB 7.3."""
    import h5py

    try:
        check_hdf5_sizes(path)
        with h5py.File(path) as file:
            arrays = [np.asarray(item) for item in file.values() if isinstance(item, h5py.Dataset)]
    except Exception as error:  # HDF5 raises nearly anything on a damaged file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = shorten(str(error), 200) or type(error).__name__
        raise ValueError(f"{path} is no file of MATLAB 7.3: {reason}") from error
    if len(arrays) != 1:
        raise ValueError(f"{path} holds {len(arrays)} arrays; expected the mouth crops only")
    return arrays[0]
