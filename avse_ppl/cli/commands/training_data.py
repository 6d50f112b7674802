"""Training data of ``avse-ppl train``: corpora and noise, and their part of a model card."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avse_ppl.data import Clip, SpeechCache


@dataclass(frozen=True)
class Sources:
    """Corpora of speech with their folders, and a folder of noise, as given."""

    speech: tuple[tuple[str, Path], ...]
    noise: Path | None = None


def parse_sources(speech: Sequence[str], noise: Path | None) -> Sources:
    """Parse ``CORPUS=DIR``.

    Raises
    ------
    ValueError
        If one has another form, or the corpus is unknown.

    Examples
    --------
    >>> parse_sources(["grid=grid_s1"], None).speech[0][0]
    'grid'
    """
    from avse_ppl.data.readers import CORPORA

    known = [name for name, corpus in CORPORA.items() if corpus.is_speech]
    pairs = []
    for text in speech:
        name, _, folder = text.partition("=")
        if not folder:
            raise ValueError(
                f"expected --speech CORPUS=DIR with CORPUS one of {', '.join(known)}; "
                f"found '{text}'"
            )
        if name not in known:
            from avse_ppl.models.validation import unknown_name

            raise unknown_name("corpus", name, known)
        pairs.append((name, Path(folder)))
    return Sources(tuple(pairs), noise)


def list_speech(sources: Sources) -> list[Clip]:
    """List the clips of all corpora of speech.

    Raises
    ------
    ValueError
        If they leave none for training or none for validation, or a corpus is not what its reader
        expects.
    FileNotFoundError
        If a folder is missing.
    """
    from avse_ppl.data.readers import CORPORA

    clips = [clip for name, folder in sources.speech for clip in CORPORA[name].reader(folder)]
    return check_splits(clips, "--speech speechocean762=DIR has both")


def list_noise(folder: Path) -> list[Clip]:
    """List the clips of noise; raises as `list_speech` does."""
    from avse_ppl.data import read_noise
    from avse_ppl.data.clips import HELD_OUT_NOISES

    held_out = ", ".join(HELD_OUT_NOISES)
    return check_splits(read_noise(folder), f"the classes held out are {held_out}")


def check_splits(clips: list[Clip], hint: str) -> list[Clip]:
    """Check that there are clips for training and for validation."""
    for split, use in (("train", "training"), ("dev", "validation")):
        if not any(clip.split == split for clip in clips):
            corpora = ", ".join(sorted({clip.corpus for clip in clips}))
            raise ValueError(f"{corpora} leaves no clip for {use}; {hint}")
    return clips


def format_command(
    prior: str,
    sources: Sources,
    output: Path,
    options: Mapping[str, object],
    command: str = "train",
) -> str:
    """Format the command that a card states: folders by their names, not their paths.

    An option whose value is a list is given once for each.

    Examples
    --------
    >>> sources = parse_sources(["grid=/data/grid_s1"], None)
    >>> format_command("vae", sources, Path("runs/vae"), {"--seed": 0, "--epochs": None})
    'avse-ppl train vae --speech grid=grid_s1 -o vae --seed 0'
    """
    words = ["avse-ppl", *command.split(), prior]
    for name, folder in sources.speech:
        words += ["--speech", f"{name}={folder.resolve().name}"]
    words += ["--noise", sources.noise.resolve().name] if sources.noise else []
    words += ["-o", output.resolve().name]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [option, str(one)] if one is not None else []
    return shlex.join(words)


def describe_data(
    sources: Sources, speech: SpeechCache | None, noise: SpeechCache | None, stated: str
) -> dict[str, Any]:
    """Describe the data for a model card, with the command that is `stated`."""
    from avse_ppl.data.readers import CORPORA, NOISE_LICENCES, UNSTATED_LICENCE

    def measure(cache: SpeechCache, corpus: str) -> str:
        lengths_s = (cache.offsets[1:] - cache.offsets[:-1]) / cache.sample_rate_hz
        mine = [i for i, clip in enumerate(cache.clips) if clip.corpus == corpus]
        used = [i for i in mine if cache.clips[i].split == "train"]
        return (
            f"{len(used)} clips, {float(lengths_s[used].sum()) / 60:.1f} min for training; "
            f"{len(mine) - len(used)} clips held out"
        )

    names = list(dict.fromkeys(name for name, _ in sources.speech))
    amounts = {name: measure(speech, name.replace("-", "_")) for name in names if speech}
    # A folder of recordings is a corpus of its own name.
    folders = [folder.resolve().name for name, folder in sources.speech if name == "recordings"]
    if folders and speech:
        amounts["recordings"] = "; ".join(f"{name}: {measure(speech, name)}" for name in folders)
    licences = {name: CORPORA[name].licence for name in names}
    splits = {name: CORPORA[name].split for name in names}
    if noise is not None:
        for name in sorted({clip.corpus for clip in noise.clips}):
            amounts[f"{name} (noise)"] = measure(noise, name)
            licences[f"{name} (noise)"] = NOISE_LICENCES.get(name, UNSTATED_LICENCE)
        splits["noise"] = CORPORA["noise"].split
    return {"corpora": amounts, "licence": licences, "split": splits, "command": f"`{stated}`"}
