"""Training on several devices: shares of the batches, and a run of two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from avse_ppl.models.weights.io import load_network
from avse_ppl.training.datasets.loaders import EpochSampler
from avse_ppl.training.devices import SharedBatches, check_devices, choose_folder

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np, torch
from avse_ppl.data.cache import build_cache
from avse_ppl.data.clips import Clip
from avse_ppl.signal.stft import Stft
from avse_ppl.training import Recipe, TrainingData, train_vae
from avse_ppl.training.devices import get_rank
from avse_ppl.training.objective import Objective

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
clips = [
    Clip(path, "made", "a", "dev" if path.stem.startswith("dev") else "train")
    for path in sorted((folder / "clips").iterdir())
]
speech = build_cache(clips, folder / "cache" / "speech", 8000)
recipe = Recipe("vae", {"latent": 2, "hidden": (8,)}, crop_s=0.2, batch=2, epochs=epochs)
seen = []
step = Objective.training_step

def record(self, batch, index):
    seen.append(batch.double().sum().item())
    return step(self, batch, index)

Objective.training_step = record
data = TrainingData(speech)
card = {"licence": "none"}
written = train_vae(recipe, data, folder / "out", name="x", card=card, devices=2,
                    stft=Stft(64, 32, sample_rate_hz=8000))
(folder / f"weights{get_rank()}").write_bytes((written / "weights.safetensors").read_bytes())
(folder / f"seen{get_rank()}-{epochs}").write_text(repr(seen))
"""


class Count(EpochSampler[int]):
    """Five batches, which tell their epoch."""

    def __iter__(self):
        yield from ([10 * self.epoch + i] for i in range(5))

    def __len__(self):
        return 5


def test_each_process_has_its_share_of_each_epoch():
    shares = [SharedBatches(Count(0), 2, rank) for rank in (0, 1)]
    for share in shares:
        share.sampler.set_epoch(3)
    assert [list(share) for share in shares] == [[[30], [32]], [[31], [33]]]
    assert [len(share) for share in shares] == [2, 2]
    with pytest.raises(ValueError, match="5 batches, fewer than the 6 devices"):
        SharedBatches(Count(0), 6, 0)


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(2, "cuda")
    check_devices(8, "cpu")
    with pytest.raises(ValueError, match=r"at most 2 devices, which are the GPUs .* found 3"):
        check_devices(3, "cuda")


def test_only_the_first_process_writes_to_the_output(tmp_path, monkeypatch):
    assert choose_folder(tmp_path) == tmp_path
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_folder(tmp_path) != tmp_path


@pytest.mark.slow
def test_two_processes_train_one_network_and_go_on(tmp_path):
    import numpy as np
    import soundfile

    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    for name in [f"train{i}" for i in range(12)] + ["dev0", "dev1"]:
        soundfile.write(tmp_path / "clips" / f"{name}.wav", 0.1 * rng.normal(size=4000), 8000)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    for epochs in (1, 2):
        subprocess.run(
            [sys.executable, script, tmp_path, str(epochs)], check=True, env=env, timeout=300
        )
    load_network(tmp_path / "out")
    assert (tmp_path / "weights0").read_bytes() == (tmp_path / "weights1").read_bytes()
    seen = {
        (rank, epochs): eval((tmp_path / f"seen{rank}-{epochs}").read_text())
        for rank in (0, 1)
        for epochs in (1, 2)
    }
    first = seen[0, 1] + seen[1, 1]
    assert len(set(first)) == len(first) > 4  # no batch twice
    assert len(seen[0, 2]) == len(seen[0, 1])  # the second run trained one epoch only
    assert not set(seen[0, 2]) & set(first)
