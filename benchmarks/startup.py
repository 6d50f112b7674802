"""Start-up: wall time of commands in fresh processes, beside importing torch alone.

Ratios of one run: each command is started several times in turn, and the fastest of each counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import row

from avse_ppl.data import highpass, mix
from avse_ppl.signal.audio import Audio, load_audio, save_audio

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 5


def measure(command: list[str]) -> float:
    """Wall seconds of a command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - begin


def main() -> list[str]:
    """Lines of the table."""
    data = ROOT / "examples" / "data"
    with tempfile.TemporaryDirectory() as folder:
        speech = highpass(load_audio(data / "speech.flac").mono().samples, 16000)
        mixed = mix(speech, load_audio(data / "rain.flac").samples, 0.0, seed=0)
        noisy = save_audio(Path(folder) / "noisy.wav", Audio(mixed.mixture, 16000))
        module = ["-m", "avse_ppl"]
        commands = {
            "`import torch`": ["-c", "import torch"],
            "`import avse_ppl`": ["-c", "import avse_ppl"],
            "`from avse_ppl import SVI`": ["-c", "from avse_ppl import SVI"],
            "`avse-ppl --help`": [*module, "--help"],
            "`avse-ppl models`": [*module, "models"],
            f"`avse-ppl enhance`, {speech.size / 16000:.1f} s": [
                *module, "enhance", str(noisy), "-o", str(Path(folder) / "enhanced.wav"),
            ],
        }  # fmt: skip
        times = np.array([[measure(c) for c in commands.values()] for _ in range(REPEATS)])
    fastest = times.min(0)
    lines = [row("command", "seconds", "of `import torch`"), row("---", "---", "---")]
    return lines + [
        row(name, f"{t:.2f}", f"{t / fastest[0]:.2f}")
        for name, t in zip(commands, fastest, strict=True)
    ]


if __name__ == "__main__":
    print("\n".join(main()))
