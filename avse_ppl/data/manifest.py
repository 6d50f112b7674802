"""Manifests of mixtures, and that of the development set: the same mixtures for everybody."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from avse_ppl.data.clips import DEV_NOISES, Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.mixing import Mixture, mix
from avse_ppl.data.readers import read_grid, read_noise
from avse_ppl.utils.files import atomic_path, read_json

DEV_SNRS_DB = (-5.0, 0.0, 5.0)


@dataclass(frozen=True)
class ManifestEntry:
    """One mixture: speech, noise, ratio and seed.

    Parameters
    ----------
    name : str
        Names the mixture within the set, for instance ``"bbab8n_rain_-5dB"``.
    speech, noise : str
        Files, relative to the data folder, with ``/`` between the parts.
    speaker : str
        Who speaks.
    noise_label : str
        The class of the noise.
    snr_db : float
        Power ratio over the active part of the speech.
    seed : int
        Of the place where the noise begins.
    """

    name: str
    speech: str
    noise: str
    speaker: str
    noise_label: str
    snr_db: float
    seed: int


def make_dev_manifest(
    data_folder: str | Path, snrs_db: Sequence[float] = DEV_SNRS_DB, seed: int = 0
) -> list[ManifestEntry]:
    """Make the development set: each unseen speaker in each unseen noise at each SNR.

    Which clip of a noise class goes with which speaker, and where it begins, is drawn once from
    `seed` and is the same at all SNRs, so that only the level differs between them.

    Parameters
    ----------
    data_folder : str or Path
        Holds ``grid_unseen/`` and ``noise/``.
    snrs_db : sequence of float
        Signal-to-noise ratios.
    seed : int
        Of the draw.

    Returns
    -------
    list of ManifestEntry
        Speakers times six noise classes times SNRs: 108 for the six speakers of ``grid_unseen``.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If there are no SNRs, or a noise class has no clips.
    """
    data_folder = Path(data_folder)
    speech = read_grid(data_folder / "grid_unseen")
    noises = [clip for clip in read_noise(data_folder / "noise") if clip.label in DEV_NOISES]
    absent = [label for label in DEV_NOISES if label not in {clip.label for clip in noises}]
    if absent:
        raise ValueError(
            f"{data_folder / 'noise'} has no clips of {', '.join(absent)}; expected all of "
            f"{', '.join(DEV_NOISES)}"
        )
    return make_manifest(speech, noises, data_folder, snrs_db, seed)


def make_manifest(
    speech: Sequence[Clip],
    noises: Sequence[Clip],
    data_folder: str | Path,
    snrs_db: Sequence[float] = DEV_SNRS_DB,
    seed: int = 0,
) -> list[ManifestEntry]:
    """Make a manifest of mixtures: each clip of speech in each class of noise at each ratio.

    Parameters
    ----------
    speech, noises : sequence of Clip
        Of one split, the same for both; each class of noise in the order of `DEV_NOISES`, others
        by name.
    data_folder : str or Path
        What holds all of them; the entries name their files relative to it.
    snrs_db : sequence of float
        Signal-to-noise ratios.
    seed : int
        Of which clip of a class goes with which speech, and where it begins; the same at all
        ratios.

    Returns
    -------
    list of ManifestEntry
        Clips times classes times ratios.

    Raises
    ------
    ValueError
        If there are no ratios, no speech or no noise, the clips are of several splits, or a file
        does not lie in the folder.
    """
    if len(snrs_db) == 0:
        raise ValueError("snrs_db is empty; expected at least one signal-to-noise ratio")
    splits = sorted({clip.split for clip in (*speech, *noises)})
    if not speech or not noises or len(splits) != 1:
        raise ValueError(
            f"{len(speech)} clips of speech and {len(noises)} of noise, of the splits {splits}; "
            "expected both, and one split: what is trained on must not be tested on"
        )
    labels = sorted({clip.label for clip in noises})
    labels = [*(x for x in DEV_NOISES if x in labels), *(x for x in labels if x not in DEV_NOISES)]
    random = np.random.default_rng(seed)
    entries = []
    for clip in speech:
        for label in labels:
            of_class = [noise for noise in noises if noise.label == label]
            noise = of_class[int(random.integers(len(of_class)))]
            place = int(random.integers(2**31))
            entries += [
                ManifestEntry(
                    name=f"{clip.path.stem}_{label}_{snr_db:g}dB",
                    speech=find_relative_path(clip.path, Path(data_folder)),
                    noise=find_relative_path(noise.path, Path(data_folder)),
                    speaker=clip.speaker,
                    noise_label=label,
                    snr_db=float(snr_db),
                    seed=place,
                )
                for snr_db in snrs_db
            ]
    return entries


def find_relative_path(path: Path, folder: Path) -> str:
    """Path of a file relative to a folder, with ``/`` between the parts."""
    if not path.is_relative_to(folder):
        raise ValueError(f"{path} does not lie in {folder}; give the folder that holds all files")
    return path.relative_to(folder).as_posix()


def realise(entry: ManifestEntry, data_folder: str | Path, sample_rate_hz: int = 16000) -> Mixture:
    """Mix one entry of a manifest.

    The speech is high-passed at 70 Hz as in training, the noise is left as it is.

    Parameters
    ----------
    entry : ManifestEntry
        The recipe.
    data_folder : str or Path
        What the paths of the entry are relative to.
    sample_rate_hz : int
        Rate of the result.

    Returns
    -------
    Mixture
        The same at every call.

    Raises
    ------
    FileNotFoundError
        If a file of the entry is missing.
    """
    data_folder = Path(data_folder)
    speech = Clip(data_folder / entry.speech, "", entry.speaker, "dev")
    noise = Clip(data_folder / entry.noise, "", "", "dev", entry.noise_label)
    return mix(
        decode(speech, sample_rate_hz),
        decode(noise, sample_rate_hz),
        entry.snr_db,
        sample_rate_hz,
        entry.seed,
    )


def save_manifest(entries: Sequence[ManifestEntry], path: str | Path) -> None:
    """Write a manifest as JSON, one entry a line.

    Parameters
    ----------
    entries : sequence of ManifestEntry
        What to write.
    path : str or Path
        Where to; written atomically.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(asdict(entry)) for entry in entries)
    with atomic_path(path) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def load_manifest(path: str | Path) -> list[ManifestEntry]:
    """Read a manifest that `save_manifest` wrote.

    Parameters
    ----------
    path : str or Path
        The JSON file.

    Returns
    -------
    list of ManifestEntry
        In the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON or its entries have other fields.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no manifest {path}; write one with save_manifest(entries, path)")
    rows = read_json(path, "manifest")
    try:
        if not isinstance(rows, list):
            raise ValueError(f"it holds a {type(rows).__name__}, not a list")
        return [parse_entry(row) for row in rows]
    except ValueError as error:
        wanted = ", ".join(field.name for field in fields(ManifestEntry))
        raise ValueError(
            f"{path} is not a manifest: {error}; expected a list of entries with {wanted}"
        ) from None


def parse_entry(row: Any) -> ManifestEntry:
    """Check the fields of an entry; raises ``ValueError`` if one is missing or of another type.

    Examples
    --------
    >>> row = {"name": "a", "speech": "s.wav", "noise": "n.wav", "speaker": "s", "snr_db": 0.0}
    >>> parse_entry({**row, "noise_label": "rain", "seed": -1})
    Traceback (most recent call last):
    ValueError: seed is -1
    """
    wanted = [field.name for field in fields(ManifestEntry)]
    if not isinstance(row, dict) or set(row) != set(wanted):
        raise ValueError(f"an entry is {shorten(repr(row), 80)}")
    for name in wanted:
        value = row[name]
        if name == "snr_db":
            right = type(value) in (int, float) and abs(value) < math.inf
        elif name == "seed":
            right = type(value) is int and value >= 0
        else:
            right = isinstance(value, str)
        if not right:
            raise ValueError(f"{name} is {shorten(repr(value), 80)}")
    try:
        return ManifestEntry(**{**row, "snr_db": float(row["snr_db"])})
    except OverflowError:
        raise ValueError(f"snr_db is {row['snr_db']}") from None
