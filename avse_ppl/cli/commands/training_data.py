"""What ``avse-ppl train`` learns from: the corpora it reads, and what a model card says of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avse_ppl.data import Clip, SpeechCache


@dataclass(frozen=True)
class Corpus:
    """A corpus of speech: its reader in ``avse_ppl.data``, licence and split."""

    reader: str
    licence: str
    split: str


CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        "grid": Corpus(
            "read_grid",
            "CC BY 4.0 (Cooke, Barker, Cunningham and Shao, 2006)",
            "last 100 clips of a speaker held out; all of a folder named *_unseen",
        ),
        "speechocean762": Corpus(
            "read_speechocean762",
            "free for commercial and non-commercial use (Zhang et al., 2021)",
            "speakers whose number ends in 7 held out",
        ),
        "lrw-ar": Corpus(
            "read_lrw_ar",
            "broadcast footage, research use only: so are weights trained on it",
            "five of the 35 people that their faces tell apart held out",
        ),
    }
)
NOISE_LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "esc10": "CC BY 3.0 (Piczak, 2015)",
        "kitchen20": "freesound clips, Creative Commons, stated clip by clip",
        "speech_commands": "CC BY 4.0 (Warden, 2018)",
    }
)
_UNSTATED = "as its authors state"


@dataclass(frozen=True)
class Sources:
    """Corpora of speech with their folders, and a folder of noise, as given."""

    speech: tuple[tuple[str, Path], ...]
    noise: Path | None = None


def parse_sources(speech: Sequence[str], noise: Path | None) -> Sources:
    """Take ``CORPUS=DIR`` apart.

    Raises
    ------
    ValueError
        If one has another form, or the corpus is unknown.

    Examples
    --------
    >>> parse_sources(["grid=grid_s1"], None).speech[0][0]
    'grid'
    """
    pairs = []
    for text in speech:
        name, _, folder = text.partition("=")
        if not folder:
            raise ValueError(
                f"expected --speech CORPUS=DIR with CORPUS one of {', '.join(CORPORA)}; "
                f"found '{text}'"
            )
        if name not in CORPORA:
            from avse_ppl.models.validation import unknown_name

            raise unknown_name("corpus", name, CORPORA)
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
    from avse_ppl import data as readers

    clips: list[Clip] = []
    for name, folder in sources.speech:
        reader: Callable[[Path], list[Clip]] = getattr(readers, CORPORA[name].reader)
        clips += reader(folder)
    return _with_both_splits(clips, "--speech speechocean762=DIR has both")


def list_noise(folder: Path) -> list[Clip]:
    """List the clips of noise; raises as `list_speech` does."""
    from avse_ppl.data import DEV_NOISES, read_noise

    held_out = ", ".join(DEV_NOISES)
    return _with_both_splits(read_noise(folder), f"the classes held out are {held_out}")


def _with_both_splits(clips: list[Clip], hint: str) -> list[Clip]:
    for split, use in (("train", "training"), ("dev", "validation")):
        if not any(clip.split == split for clip in clips):
            corpora = ", ".join(sorted({clip.corpus for clip in clips}))
            raise ValueError(f"{corpora} leaves no clip for {use}; {hint}")
    return clips


def command(prior: str, sources: Sources, output: Path, options: Mapping[str, object]) -> str:
    """Write the command that a card states: folders by their names, not their places.

    An option whose value is a list is given once for each.

    Examples
    --------
    >>> sources = parse_sources(["grid=/data/grid_s1"], None)
    >>> command("vae", sources, Path("runs/vae"), {"--seed": 0, "--epochs": None})
    'avse-ppl train vae --speech grid=grid_s1 -o vae --seed 0'
    """
    words = ["avse-ppl", "train", prior]
    for name, folder in sources.speech:
        words += ["--speech", f"{name}={folder.resolve().name}"]
    words += ["--noise", sources.noise.resolve().name] if sources.noise else []
    words += ["-o", output.resolve().name]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [option, str(one)] if one is not None else []
    return shlex.join(words)


def card(
    sources: Sources, speech: SpeechCache | None, noise: SpeechCache | None, stated: str
) -> dict[str, Any]:
    """Write what the model card says of the data, and the command that is `stated`."""
    names = list(dict.fromkeys(name for name, _ in sources.speech))
    amounts = {name: _amount(speech, name.replace("-", "_")) for name in names if speech}
    licences = {name: CORPORA[name].licence for name in names}
    splits = {name: CORPORA[name].split for name in names}
    if noise is not None:
        for name in sorted({clip.corpus for clip in noise.clips}):
            amounts[f"{name} (noise)"] = _amount(noise, name)
            licences[f"{name} (noise)"] = NOISE_LICENCES.get(name, _UNSTATED)
        splits["noise"] = "whole classes held out"
    return {"corpora": amounts, "licence": licences, "split": splits, "command": f"`{stated}`"}


def _amount(cache: SpeechCache, corpus: str) -> str:
    lengths_s = (cache.offsets[1:] - cache.offsets[:-1]) / cache.sample_rate_hz
    mine = [i for i, clip in enumerate(cache.clips) if clip.corpus == corpus]
    used = [i for i in mine if cache.clips[i].split == "train"]
    return (
        f"{len(used)} clips, {float(lengths_s[used].sum()) / 60:.1f} min for training; "
        f"{len(mine) - len(used)} clips held out"
    )
