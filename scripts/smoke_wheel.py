"""Use the installed wheel as a stranger would: no checkout, no extras, no microphone.

Run it with the Python of the environment that the wheel is installed in, from a folder outside the
checkout: ``python smoke_wheel.py CHECKOUT``.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import avse_ppl

COMMAND = Path(sys.executable).with_name("avse-ppl")
SAMPLE_RATE_HZ = 16_000


def check(holds: bool, what: str) -> None:
    """Print `what` and stop the script unless it holds."""
    print(f"{'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        sys.exit(1)


def check_command(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``avse-ppl`` with `arguments` and check its exit code."""
    finished = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if finished.returncode != code:
        print(finished.stdout, finished.stderr, sep="\n")
    shown = " ".join(Path(a).name if isinstance(a, Path) else a for a in arguments)
    check(finished.returncode == code, f"`avse-ppl {shown}` exits with {code}")
    return finished


def voice_in_noise(seconds: float) -> np.ndarray:
    """Return harmonics of a gliding pitch, switched on and off as syllables are, in white noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * time_s)) / SAMPLE_RATE_HZ
    voice = sum(np.sin(k * pitch) / k for k in range(1, 20)) * (np.sin(6 * np.pi * time_s) > 0)
    return (0.1 * voice + 0.05 * rng.standard_normal(time_s.size)).astype(np.float32)


def check_contents(checkout: Path) -> None:
    """Check that the package comes from the wheel, whole, and with nothing beside it."""
    check(not Path(avse_ppl.__file__).is_relative_to(checkout), "the package is not the checkout's")
    files = importlib.metadata.files("avse-ppl") or []
    tops = {file.parts[0] for file in files if ".." not in file.parts}
    tops = {top for top in tops if not top.endswith(".dist-info")}
    check(tops == {"avse_ppl"}, f"the wheel installs avse_ppl and nothing else: {sorted(tops)}")
    names = {file.name for file in files}
    check("py.typed" in names and "LICENSE" in names, "types are declared, the licence is there")
    package = checkout / "avse_ppl"
    sources = {p.relative_to(checkout) for p in package.rglob("*") if p.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts}
    missing = sorted(str(path) for path in sources - {Path(file) for file in files})
    check(bool(sources) and not missing, f"every file of the package is in the wheel: {missing}")


def check_enhance(folder: Path) -> None:
    """Check that a recording is enhanced, and that bad input is refused and leaves nothing."""
    noisy, enhanced = folder / "noisy.wav", folder / "enhanced.wav"
    samples = voice_in_noise(1.5)
    soundfile.write(noisy, samples, SAMPLE_RATE_HZ)
    check_command("enhance", noisy, "-o", enhanced, "--seed", "0", "--device", "cpu")
    output, sample_rate_hz = soundfile.read(enhanced)
    check(
        output.shape == samples.shape and sample_rate_hz == SAMPLE_RATE_HZ,
        "the enhanced file has the length and the rate of the noisy one",
    )
    check(
        bool(np.isfinite(output).all() and np.any(output)) and not np.allclose(output, samples),
        "it holds sound, and not the input again",
    )

    garbage, refused = folder / "garbage.wav", folder / "refused.wav"
    garbage.write_bytes(b"this is no audio")
    for bad in (garbage, folder / "missing.wav"):
        stderr = check_command("enhance", bad, "-o", refused, code=2).stderr
        check(
            "Traceback" not in stderr and bool(stderr.strip()), "the error is one a user can read"
        )
    left = sorted(path.name for path in folder.iterdir())
    check(left == sorted(["enhanced.wav", "garbage.wav", "noisy.wav"]), f"no rest is left: {left}")


def main() -> None:
    """Run every check; exit 1 at the first that fails."""
    check_contents(Path(sys.argv[1]).resolve())
    check("enhance" in check_command("--help").stdout, "--help names the commands")
    check("torch" in check_command("doctor").stdout.lower(), "doctor reports on torch")
    check("SVI" in check_command("models").stdout.upper(), "models lists the routines")
    with tempfile.TemporaryDirectory() as folder:
        check_enhance(Path(folder))


if __name__ == "__main__":
    main()
