"""The reliability network, what it is given, and how it is trained."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from avse_ppl.models.networks.av_sync import (
    CHANCE,
    MOST_LAG,
    average_window,
    find_interior,
    is_comparable,
    log_odds,
    score_lags,
)
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.io import (
    init_from_lip_encoder,
    load_reliability,
    save_reliability,
)
from avse_ppl.signal.audio import Audio, load_audio
from avse_ppl.video import Lips, read_lips
from avse_ppl.video.av_offset import compute_band_levels
from avse_ppl.video.corruptions import CAUSES, corrupt
from avse_ppl.video.quality.features import compute_log_mel_energies, compute_tracker_columns
from avse_ppl.video.quality.score import score_lips

MOUTH = Path(__file__).parents[2] / "examples" / "data" / "mouth.mkv"
SMALL = {"width": 4, "hidden": 8, "features": 8, "tower": 4}


@pytest.fixture(scope="module")
def mouth():
    return read_lips(MOUTH)


@pytest.fixture(scope="module")
def sound():
    return load_audio(MOUTH)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return ReliabilityNetwork(**SMALL).eval()


def test_it_is_small_and_fast(mouth, sound):
    network = load_reliability()
    assert sum(p.numel() for p in network.parameters()) < 1_000_000
    score_lips(mouth, sound)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begin = time.process_time()
        score_lips(mouth, sound)
        assert len(mouth) / (time.process_time() - begin) > 100  # frames a second, one core
    finally:
        torch.set_num_threads(threads)


def test_no_face_no_score(small, mouth, sound):
    known = corrupt(mouth, "drop", span=(10, 20))
    judged = score_lips(known.lips, sound, network=small)
    assert (judged.score[10:20] == 0).all()
    assert (judged.score[:10] > 0).all()
    assert set(judged.cause[10:20]) == {"missing"}
    assert np.isnan(judged.agreement[10:20]).all()
    assert np.isfinite(judged.agreement[40:60]).all()


def test_all_frames_missing(sound):
    judged = score_lips(Lips.from_crops(np.zeros((40, 88, 88), np.uint8), rate_hz=25), sound)
    assert (judged.score == 0).all()
    assert set(judged.cause) == {"missing"}
    assert np.isnan(judged.agreement).all()
    assert np.allclose(judged.cause_probability.sum(axis=1), 1)


def test_what_comes_out(small, mouth, sound):
    judged = score_lips(mouth, sound, network=small)
    assert judged.cause_probability.shape == (75, len(CAUSES))
    assert np.allclose(judged.cause_probability.sum(axis=1), 1)
    inner = judged.agreement[8:-8]
    assert ((inner >= 0) & (inner <= 1)).all()
    assert np.isnan(judged.agreement[[0, -1]]).all()  # too few pictures around to compare
    assert np.isnan(score_lips(mouth, network=small).agreement).all()
    spans = judged.spans()
    assert spans[0][0] == 0.0
    assert spans[-1][1] == pytest.approx(3.0)


def test_nan_of_an_unknown_pose_stays_out(small, mouth):
    columns = compute_tracker_columns(mouth)
    assert np.isnan(mouth.pose_deg).any()
    assert np.isfinite(columns).all()
    assert np.isfinite(score_lips(mouth, network=small).score).all()


def test_other_rates_and_shifted_times(small, mouth, sound):
    fast = mouth.resample(50.0)
    judged = score_lips(fast, sound, network=small)
    assert len(judged.score) == len(fast) == 150
    assert np.array_equal(judged.time_s, fast.time_s)
    same = score_lips(mouth, sound, network=small)
    assert np.allclose(judged.score[::2], same.score, atol=0.02)
    late = score_lips(mouth.shifted(0.2), sound, network=small)
    assert len(late.score) == 75


def test_channels_in_opposite_phase_are_heard(small, mouth, sound):
    opposite = Audio(np.stack([sound.samples, -sound.samples]), sound.sample_rate_hz)
    judged = score_lips(mouth, opposite, network=small)
    expected = score_lips(mouth, sound, network=small)
    assert np.array_equal(judged.score, expected.score)
    assert np.array_equal(judged.agreement, expected.agreement, equal_nan=True)
    levels = compute_band_levels(opposite)
    assert np.array_equal(levels, compute_band_levels(sound))
    assert levels.std() > 0.01


def test_blocks_join_without_a_seam(small, mouth, sound, monkeypatch):
    long = Lips.from_crops(np.tile(mouth.roi, (2, 1, 1)), rate_hz=25)
    whole = score_lips(long, network=small).score
    monkeypatch.setattr("avse_ppl.video.quality.score._BLOCK", 60)
    assert np.allclose(score_lips(long, network=small).score, whole, atol=1e-4)


def test_bad_input_is_refused(small, mouth):
    with pytest.raises(TypeError, match="read_lips"):
        score_lips(mouth.roi)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="load_audio"):
        score_lips(mouth, np.zeros(16000), network=small)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="NaN"):
        score_lips(mouth, Audio(np.full(16000, np.nan), 16000), network=small)
    with pytest.raises(ValueError, match="expected 'reliability'"):
        score_lips(mouth, network="tcvae")
    with pytest.raises(ValueError, match=r"found \(0, 88, 88\)"):
        Lips.from_crops(np.zeros((0, 88, 88), np.uint8), rate_hz=25)


@pytest.mark.parametrize("samples", [np.zeros(48000), np.ones(1000)])
def test_sound_that_tells_nothing_is_left_out(small, mouth, samples):
    with pytest.warns(UserWarning, match="scored without it"):
        judged = score_lips(mouth, Audio(samples.astype(np.float32), 16000), network=small)
    assert np.isnan(judged.agreement).all()
    assert np.array_equal(judged.score, score_lips(mouth, network=small).score)


def test_lags_are_where_they_are_said_to_be():
    """Sound that comes 3 frames later is found at lag 3, and its log odds are high there."""
    torch.manual_seed(0)
    seen = torch.nn.functional.normalize(torch.randn(1, 6, 60), dim=1)
    late = torch.roll(seen, 3, dims=2)
    present = torch.ones(1, 60)
    mean, count = average_window(*score_lags(seen, late, present, 8.0), 21)
    assert (mean.masked_fill(count == 0, -9).argmax(-1) - MOST_LAG == 3).all()
    together, _ = average_window(*score_lags(seen, seen, present, 8.0), 21), 0
    assert (log_odds(*together) > 0).all()
    assert (log_odds(mean, count) < 0).all()


def test_frames_without_a_face_do_not_count():
    seen, present = torch.ones(1, 4, 40) / 2, torch.ones(1, 40)
    present[0, 10:20] = 0
    _, valid = score_lags(seen, seen, present)
    assert not valid[0, 10:20].any()
    assert valid[0, 0, MOST_LAG - 1] == 0  # before the beginning there is no sound
    assert valid[0, 0, MOST_LAG] == 1


def test_the_ends_tell_nothing(small):
    """Towers that are told apart by their padding alone are not compared at all."""
    torch.manual_seed(0)
    still, quiet = torch.zeros(1, 40, 44, 44), torch.zeros(1, 40, 160)
    with torch.no_grad():
        seen = small.agreement.lips(still)[0]
        assert not torch.allclose(seen[:, 0], seen[:, 20], atol=1e-6)  # the padding shows
        assert torch.allclose(seen[:, 8:-8], seen[:, [20]], atol=1e-6)
        heard = small.agreement.sound(quiet)[0]
        assert torch.allclose(heard[:, 8:-8], heard[:, [20]], atol=1e-6)


def test_what_is_too_short_is_unknown(small):
    """Then the score is that of the pictures, to the bit, whatever the sound."""
    images, columns = torch.randn(1, 21, 44, 44), torch.ones(1, 21, 13)
    judged = small(images, columns, torch.randn(1, 21, 160))
    alone = small(images, columns)
    assert not judged.compared.any()
    assert torch.equal(judged.score, alone.score)
    assert torch.equal(judged.cause.softmax(1)[:, -1] < 1e-5, torch.ones(1, 21, dtype=torch.bool))
    assert torch.allclose(judged.in_sync, torch.tensor(CHANCE))


def test_lags_that_cannot_be_heard_are_neither_for_nor_against():
    mean, count = torch.zeros(1, 1, 51), torch.zeros(1, 1, 51)
    count[..., MOST_LAG - 7 : MOST_LAG + 8] = 9.0
    assert is_comparable(count).all()
    assert log_odds(mean, count).item() == pytest.approx(CHANCE)
    count[..., MOST_LAG - 7 : MOST_LAG + 8] = 0.0
    assert not is_comparable(count).any()


def test_a_gap_is_kept_away_from(small):
    present = torch.ones(1, 60)
    present[0, 30] = 0
    assert find_interior(present)[0].nonzero().flatten().tolist() == [*range(8, 22), *range(39, 52)]


def test_sound_only_lowers_the_score(small, mouth, sound):
    """And only where lips and sound could be compared."""
    small.apart[:] = 0.5
    alone, heard = score_lips(mouth, network=small), score_lips(mouth, sound, network=small)
    assert (heard.score <= alone.score + 1e-6).all()
    assert (heard.score < alone.score).any()
    assert heard.cause_probability[:, -1].max() > alone.cause_probability[:, -1].max()
    small.apart[0] = -30.0
    assert np.allclose(score_lips(mouth, sound, network=small).score, alone.score, atol=1e-6)


def test_levels_follow_the_sound():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=32000).astype(np.float32)
    samples[:16000] *= 0.01
    levels = compute_log_mel_energies(samples, 50)
    assert levels[:24].mean() < -1
    assert levels[26:].mean() > 1
    assert np.allclose(compute_log_mel_energies(3.0 * samples, 50), levels, atol=1e-3)


def test_columns_say_what_happened(mouth):
    frozen = compute_tracker_columns(corrupt(mouth, "freeze", span=(10, 20)).lips)
    assert (frozen[11:20, 9] == 0).all()
    assert (frozen[1:10, 9] > 0).all()
    gone = compute_tracker_columns(corrupt(mouth, "drop", span=(10, 20)).lips)
    assert (gone[10:20] == 0).all()
    assert gone[9, 12] > gone[5, 12] > 0


def test_weights_come_back(tmp_path, small, mouth, sound):
    save_reliability(tmp_path, small, name="small", card={"licence": "none"})
    assert json.loads((tmp_path / "config.json").read_text())["use"] == "reliability"
    assert "Reliability network" in (tmp_path / "README.md").read_text()
    again = score_lips(mouth, sound, network=tmp_path)
    assert np.array_equal(again.score, score_lips(mouth, sound, network=small).score)


def test_the_tower_starts_from_a_visual_encoder(tmp_path, small):
    from safetensors.torch import save_file

    tower = small.agreement.lips
    given = {"flat.weight": torch.full_like(tower.flat.weight, 0.5), "alien": torch.zeros(3)}
    save_file(given, tmp_path / "weights.safetensors")
    assert init_from_lip_encoder(small, tmp_path) == ["flat.weight"]
    assert (tower.flat.weight == 0.5).all()
    save_file({"alien": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="no weight of"):
        init_from_lip_encoder(small, tmp_path)


def test_shipped_weights_tell_a_good_mouth_from_a_covered_one(mouth, sound):
    clean = score_lips(mouth, sound).score.mean()
    covered = corrupt(mouth, "microphone", severity=1.0, seed=1)
    assert clean > score_lips(covered.lips, sound).score[covered.reliability < 0.3].mean() + 0.3
