"""How fast faces are tracked: pictures a second from a video file to mouth crops.

The six GRID clips of speakers never seen (360x288, 75 pictures each), read three times
each, the first time of all left out. CPU seconds are those of all threads of the process, so that
their rate does not depend on what else the machine does.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from common import SHARED, machine, row, timed

from avse_ppl.video import load_detector, read_lips

CLIPS = SHARED / "data" / "grid_unseen"
DETECTOR = SHARED / "models" / "face" / "scrfd_500m_kps.onnx"
_REPEATS = 3


def rates(path: Path, detector: object) -> tuple[int, float, float]:
    """Pictures of a clip, and pictures a second by the clock and by the CPU; the median reading."""
    readings = sorted(_reading(path, detector) for _ in range(_REPEATS))
    return readings[len(readings) // 2]


def _reading(path: Path, detector: object) -> tuple[int, float, float]:
    lips, wall_s, cpu_s = timed(lambda: read_lips(path, face_model=detector))  # type: ignore[arg-type]
    return len(lips), len(lips) / wall_s, len(lips) / cpu_s


def main() -> None:
    """Print a table."""
    warnings.simplefilter("ignore")
    detector = load_detector(DETECTOR)
    paths = sorted(CLIPS.glob("*.mkv"))
    _reading(paths[0], detector)
    print(machine() + "\n")
    print(row("clip", "pictures", "a second", "a CPU-second"))
    print(row(*["---"] * 4))
    found = [rates(path, detector) for path in paths]
    for path, reading in zip(paths, found, strict=True):
        print(row(path.stem, *reading))
    total = sum(count for count, _, _ in found)
    wall_s, cpu_s = (sum(r[0] / r[i] for r in found) for i in (1, 2))
    print(row("all", total, total / wall_s, total / cpu_s))


if __name__ == "__main__":
    main()
