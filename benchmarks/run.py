"""All benchmarks: prints the tables and writes them, with the machine, to benchmarks/RESULTS.md."""

from __future__ import annotations

import datetime
from pathlib import Path

import batching
import dev_quality
import em_family
import noise_models
import nuts
import published_sample
import svi
from common import PEERS, SHARED, machine


def main() -> None:
    """Run what the data at hand allow."""
    parts = [
        "# Benchmark results",
        "",
        f"Written by `make bench` on {datetime.date.today()}; {machine()}.",
        "Quality is SI-SDR in dB / PESQ wide-band / ESTOI, means over clips, next to the input's.",
    ]
    if PEERS.is_dir():
        parts += ["", "## Published sample, published weights", "", *published_sample.main()]
        parts += ["", "## The EM family on the published sample", "", *em_family.main()]
    else:
        print("left out: the published sample is not part of the project")
    if (SHARED / "data").is_dir():
        parts += ["", "## Development set (108 mixtures)", "", *dev_quality.main()]
        parts += ["", "## Noise models", "", *noise_models.main()]
    else:
        print("left out: the development corpora are not part of the project")
    parts += ["", "## Variational inference", "", *svi.main(), "", *nuts.main()]
    parts += ["", "## Batches and long recordings (bundled clips)", "", *batching.main()]
    text = "\n".join(parts) + "\n"
    print(text)
    (Path(__file__).parent / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
