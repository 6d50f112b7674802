"""The fixed development set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avse_ppl.data import (
    DEV_NOISES,
    Clip,
    active_mask,
    check_disjoint,
    load_manifest,
    make_dev_manifest,
    make_manifest,
    read_grid,
    read_lrw_ar,
    read_noise,
    read_speechocean762,
    realise,
    save_manifest,
)
from tests.helpers import RATE_HZ


def white(size, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(size)


@pytest.fixture
def data(tmp_path):
    """Two unseen speakers and three clips of each development noise."""
    folder = tmp_path / "data"
    paths = [folder / "grid_unseen" / f"{name}.flac" for name in ("aaa", "bbb")]
    for label in (*DEV_NOISES, "rooster"):
        paths += [folder / "noise" / "made_up" / label / f"{i}.flac" for i in range(3)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, white(8000, seed), RATE_HZ)
    return folder


def test_dev_set_is_every_speaker_in_every_noise_at_every_snr(data):
    entries = make_dev_manifest(data)
    assert len(entries) == 2 * 6 * 3
    assert len({entry.name for entry in entries}) == 36
    assert {(e.speaker, e.noise_label, e.snr_db) for e in entries} == {
        (speaker, label, snr_db)
        for speaker in ("grid_aaa", "grid_bbb")
        for label in DEV_NOISES
        for snr_db in (-5.0, 0.0, 5.0)
    }
    assert all(f"/{entry.noise_label}/" in entry.noise for entry in entries)
    assert entries[0].name == "aaa_rain_-5dB"


def test_dev_set_changes_only_the_level_between_snrs(data):
    draws = {}
    for entry in make_dev_manifest(data):
        draws.setdefault((entry.speech, entry.noise_label), set()).add((entry.noise, entry.seed))
    assert all(len(draw) == 1 for draw in draws.values())
    assert len({draw.pop() for draw in draws.values()}) == 12


def test_dev_set_is_reproducible_and_seeded(data):
    assert make_dev_manifest(data) == make_dev_manifest(data, seed=0)
    assert make_dev_manifest(data) != make_dev_manifest(data, seed=1)


def test_dev_set_needs_snrs_and_all_noises(data):
    with pytest.raises(ValueError, match="snrs_db is empty"):
        make_dev_manifest(data, snrs_db=())
    for path in (data / "noise" / "made_up" / "cutlery").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no clips of cutlery"):
        make_dev_manifest(data)
    with pytest.raises(FileNotFoundError, match="grid_unseen"):
        make_dev_manifest(data / "absent")


def test_any_corpora_can_be_laid_down(data):
    noises = [clip for clip in read_noise(data / "noise") if clip.split == "dev"]
    speech = read_grid(data / "grid_unseen")
    entries = make_manifest(speech[:1], noises[::-1], data, snrs_db=(2.5,))
    assert [entry.noise_label for entry in entries] == list(DEV_NOISES)
    assert entries[0].name == "aaa_rain_2.5dB"


def test_a_manifest_is_of_one_split_and_one_folder(data, tmp_path):
    noises = read_noise(data / "noise")
    speech = read_grid(data / "grid_unseen")
    for clips, noise in ((speech, noises), ([], noises[:1]), (speech, [])):
        with pytest.raises(ValueError, match="expected both, and one split"):
            make_manifest(clips, noise, data)
    held_out = [clip for clip in noises if clip.split == "dev"]
    with pytest.raises(ValueError, match=r"aaa\.flac does not lie in .*noise; give the folder"):
        make_manifest(speech, held_out, data / "noise")


def test_speakers_and_noises_are_on_one_side():
    def clip(speaker, split, label=""):
        return Clip(Path("a.wav"), "c", speaker, split, label)

    good = [clip("anna", "train"), clip("bert", "dev"), clip("", "dev", "rain"), clip("", "train")]
    check_disjoint([*good, clip("unknown", "train")])
    with pytest.raises(ValueError, match="speaker 'anna' is in test and train; expected each"):
        check_disjoint([*good, clip("anna", "test")])
    with pytest.raises(ValueError, match="noise 'rain' and 1 more is in dev and train"):
        check_disjoint([*good, clip("", "train", "rain"), clip("bert", "test")])
    with pytest.raises(ValueError, match="nobody knows whether"):
        check_disjoint([clip("unknown", "train"), clip("unknown", "dev")])


def test_real_corpora_are_disjoint(shared):
    data = shared / "data"
    clips = [*read_lrw_ar(data / "lrw_ar"), *read_speechocean762(data / "speechocean762")]
    check_disjoint([*clips, *read_grid(data / "grid_unseen"), *read_noise(data / "noise")])


def test_realise_mixes_what_the_entry_says(data):
    entry = make_dev_manifest(data)[2]
    mixed = realise(entry, data)
    np.testing.assert_array_equal(mixed.mixture, realise(entry, data).mixture)
    assert mixed.snr_db == entry.snr_db == 5.0
    clean, _ = soundfile.read(data / entry.speech)
    assert np.corrcoef(mixed.speech, clean)[0, 1] > 0.98  # all but the rumble
    assert realise(entry, data, sample_rate_hz=8000).mixture.shape == (4000,)


def test_realise_names_a_missing_file(data):
    entry = dataclasses.replace(make_dev_manifest(data)[0], noise="noise/absent.flac")
    with pytest.raises(FileNotFoundError, match=r"absent\.flac"):
        realise(entry, data)


def test_manifest_comes_back_and_names_no_machine(data, tmp_path):
    entries = make_dev_manifest(data)
    path = tmp_path / "new" / "dev.json"
    save_manifest(entries, path)
    assert load_manifest(path) == entries
    assert str(tmp_path) not in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["dev.json"]


def test_failed_save_leaves_the_old_manifest(data, tmp_path, monkeypatch):
    path = tmp_path / "dev.json"
    entries = make_dev_manifest(data)
    save_manifest(entries, path)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_manifest(entries[:1], path)
    assert load_manifest(path) == entries
    assert {p.name for p in tmp_path.iterdir()} == {"data", "dev.json"}


def test_manifest_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no manifest"):
        load_manifest(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{}", "expected a list of"),
        (b"[3]", "expected a list of"),
        (json.dumps([{"name": "a"}]).encode(), "an entry is .*expected a list of .*snr_db"),
    ],
)
def test_manifest_that_is_none(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_manifest(path)


def test_real_dev_set(shared):
    entries = make_dev_manifest(shared / "data")
    assert len(entries) == 108
    assert len({entry.speaker for entry in entries}) == 6
    for entry in entries[::17]:
        mixed = realise(entry, shared / "data")
        active = active_mask(mixed.speech, RATE_HZ)
        ratio = np.mean(mixed.speech[active] ** 2.0) / np.mean(mixed.noise[active] ** 2.0)
        assert 10 * np.log10(ratio) == pytest.approx(entry.snr_db, abs=0.01)
        assert np.abs(mixed.mixture).max() <= 0.99 + 1e-6
        assert mixed.input_si_sdr_db < entry.snr_db + 1.0
