"""Example recordings that come with the package, for examples, notebooks and first attempts."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "examples"


def get_example_path(name: str) -> Path:
    """Get the path of an example recording that comes with the package.

    Parameters
    ----------
    name
        File name: ``speech.flac`` and ``speech.mkv``, a sentence and the face that says it;
        ``mouth.mkv``, ``mouth_in_red.mkv``, mouths and voices; ``rain.flac``,
        ``clock_tick.flac``, ``running_tap.flac``, noises. ``ATTRIBUTION.md`` says where they come
        from and under which licences.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If there is no such recording.

    Examples
    --------
    >>> from avse_ppl import load_audio
    >>> load_audio(get_example_path("speech.flac")).duration_s
    2.978
    """
    names = sorted(path.name for path in _FOLDER.iterdir() if path.is_file())
    if name not in names:
        raise ValueError(f"expected one of {', '.join(names)}; found {name!r}")
    return _FOLDER / name
