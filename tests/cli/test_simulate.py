"""``avse-ppl simulate``."""

from __future__ import annotations

import json

import numpy as np

from avse_ppl.signal.audio import load_audio
from tests.helpers import error_of, run_cli

QUICK = ("--speech", "gaussian", "--noise", "stationary", "--duration", 0.2, "--draws", 2)


def test_mixtures_are_written_with_their_parts(tmp_path):
    out = tmp_path / "drawn"
    result = run_cli("simulate", "-o", out, *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{i}.{part}.wav" for i in range(2) for part in ("mixture", "speech", "noise")
    )
    assert len(files) == 6
    mixture, speech, noise = (
        load_audio(out / f"1.{part}.wav").samples for part in ("mixture", "speech", "noise")
    )
    np.testing.assert_allclose(mixture, speech + noise, atol=1e-6)
    first = (out / "0.mixture.wav").read_bytes()
    again = tmp_path / "again"
    assert "2 mixtures of 0.2 s at 16000 Hz" in run_cli("simulate", "-o", again, *QUICK).stdout
    assert (again / "0.mixture.wav").read_bytes() == first


def test_a_denoiser_and_a_file_are_refused(tmp_path):
    result = run_cli("simulate", "-o", tmp_path / "drawn", "--speech", "score", "--draws", 1)
    assert result.exit_code == 2 and "is a denoiser" in error_of(result)
    assert not (tmp_path / "drawn").exists()
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file"):
        result = run_cli("simulate", "-o", place, *QUICK)
        assert result.exit_code == 2 and "expected a new or an empty folder" in error_of(result)
    result = run_cli("simulate", "-o", tmp_path / "drawn", *QUICK[:-3], 0.01, *QUICK[-2:])
    assert result.exit_code == 2 and "one STFT window, 0.064 s" in error_of(result)
