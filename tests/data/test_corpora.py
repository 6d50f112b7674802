"""Readers and decoding, on small made-up trees and on the real ones; what is bundled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avse_ppl.data import (
    Clip,
    decode,
    highpass,
    read_grid,
    read_lrw_ar,
    read_noise,
    read_speechocean762,
)
from avse_ppl.data.clips import HELD_OUT_NOISES
from avse_ppl.data.readers.lrw_ar import load_identities
from avse_ppl.data.readers.recordings import read_recordings
from tests.helpers import BUNDLED, RATE_HZ


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def tone(path, freq_hz=440.0, seconds=0.5, rate_hz=RATE_HZ, channels=1, level=0.25):
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = level * np.sin(2 * np.pi * freq_hz * time_s)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate_hz)
    return path


def speech(path, speaker="anna", split="train", **options):
    return Clip(tone(path, **options), "made_up", speaker, split)


# Readers


def test_clip_rejects_another_split():
    with pytest.raises(ValueError, match=r"'held'.*'train', 'dev' or 'test'"):
        Clip(Path("a.wav"), "grid", "s1", "held")


def test_grid_holds_out_the_last_hundred_by_name(tmp_path):
    folder = tmp_path / "grid_s1"
    names = [f"{i:03d}.mkv" for i in range(103)]
    touch(
        *(folder / name for name in reversed(names)), folder / "notes.txt", folder / "z" / "x.mkv"
    )
    clips = read_grid(folder)
    assert [clip.path.name for clip in clips] == names
    assert [clip.split for clip in clips] == ["train"] * 3 + ["dev"] * 100
    assert {clip.speaker for clip in clips} == {"grid_s1"}
    assert not any(clip.is_noise for clip in clips)


def test_grid_unseen_is_development_with_a_speaker_a_clip(tmp_path):
    folder = tmp_path / "grid_unseen"
    touch(folder / "b.mkv", folder / "a.MKV")
    clips = read_grid(folder)
    assert [clip.path.name for clip in clips] == ["a.MKV", "b.mkv"]
    assert [clip.speaker for clip in clips] == ["grid_a", "grid_b"]
    assert {clip.split for clip in clips} == {"dev"}


def test_grid_with_too_few_clips_of_one_speaker(tmp_path):
    touch(*(tmp_path / "s2" / f"{i:03d}.mkv" for i in range(100)))
    with pytest.raises(ValueError, match=r"holds 100 clips; expected more than 100.*_unseen"):
        read_grid(tmp_path / "s2")


@pytest.mark.parametrize("reader", [read_grid, read_speechocean762, read_lrw_ar, read_noise])
def test_readers_name_the_layout_of_a_missing_folder(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found nothing.*expected .*<folder>/"):
        reader(tmp_path / "absent")
    touch(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="found a file"):
        reader(tmp_path / "file")


@pytest.mark.parametrize("reader", [read_grid, read_lrw_ar, read_noise])
def test_readers_say_what_is_there_instead(reader, tmp_path):
    with pytest.raises(ValueError, match=r"no clips.*an empty folder"):
        reader(tmp_path)
    touch(*(tmp_path / f"{i}.txt" for i in range(7)))
    with pytest.raises(ValueError, match=r"expected .*<folder>/.*7 entries: 0\.txt, .*, \.\.\."):
        reader(tmp_path)


def table(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "list.tsv").write_text(text, encoding="utf-8")


def test_speechocean_holds_out_numbers_ending_in_seven(tmp_path):
    table(tmp_path, "file\tspeaker\tage\n0027/b.opus\t0027\t20\n0072/a.opus\t0072\t30\n")
    touch(tmp_path / "0072" / "a.opus", tmp_path / "0027" / "b.opus", tmp_path / "7" / "no.opus")
    clips = read_speechocean762(tmp_path)
    assert [(clip.path.name, clip.speaker, clip.split) for clip in clips] == [
        ("b.opus", "speechocean762_0027", "dev"),
        ("a.opus", "speechocean762_0072", "train"),
    ]


def test_speechocean_without_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*list\.tsv; expected"):
        read_speechocean762(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,speaker\na.opus,1\n", r"columns \['file,speaker'\].*separated by tabs"),
        ("", r"columns \[\]"),
        ("file\tspeaker\n", "lists no clips"),
        ("file\tspeaker\na.opus\n", "without a file or a speaker"),
    ],
)
def test_speechocean_with_a_bad_list(tmp_path, text, message):
    table(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        read_speechocean762(tmp_path)


def test_speechocean_with_missing_clips(tmp_path):
    table(tmp_path, "file\tspeaker\n1/a.opus\t1\n1/b.opus\t1\n1/c.opus\t1\n")
    touch(tmp_path / "1" / "b.opus")
    with pytest.raises(FileNotFoundError, match=r"2 of the 3 clips.*first is 1/a\.opus"):
        read_speechocean762(tmp_path)


def test_lrw_ar_unlisted_clips_are_training_of_an_unknown_speaker(tmp_path):
    touch(tmp_path / "2.mp4", tmp_path / "1.mp4", tmp_path / "Train" / "Video" / "3.mp4")
    clips = read_lrw_ar(tmp_path)
    assert [clip.path.name for clip in clips] == ["1.mp4", "2.mp4", "3.mp4"]
    assert {(clip.speaker, clip.split, clip.is_noise) for clip in clips} == {
        ("unknown", "train", False)
    }


def test_lrw_ar_listed_clips_have_a_speaker_by_name_and_size(tmp_path):
    listed = {}
    for (stem, size), (identity, split) in load_identities().items():
        listed.setdefault(split, (stem, size, identity))
    for stem, size, _ in listed.values():
        (tmp_path / f"{stem}.mp4").write_bytes(b"x" * size)
    stem, size, _ = listed["dev"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"{stem}.mp4").write_bytes(b"x" * (size + 1))
    found = {(clip.path.stem, clip.speaker, clip.split) for clip in read_lrw_ar(tmp_path)}
    assert found == {
        (listed["dev"][0], f"lrw_ar_{listed['dev'][2]}", "dev"),
        (listed["train"][0], f"lrw_ar_{listed['train'][2]}", "train"),
        (stem, "unknown", "train"),
    }


def test_lrw_ar_holds_out_whole_identities():
    rows = list(load_identities().values())
    people = {split: {who for who, where in rows if where == split} for split in ("train", "dev")}
    assert len(people["dev"]) == 5 and not people["dev"] & people["train"]
    assert {who for who, where in rows if where == "out"} == {""}
    assert sum(where == "dev" for _, where in rows) > 200


def test_noise_holds_out_whole_classes(tmp_path):
    touch(
        tmp_path / "esc10" / "rain" / "1.ogg",
        tmp_path / "esc10" / "rooster" / "1.ogg",
        tmp_path / "kitchen20" / "stove-fan" / "x.ogg",
        tmp_path / "kitchen20" / "stove-burner" / "x.ogg",
        tmp_path / "speech_commands" / "running_tap.flac",
        tmp_path / "speech_commands" / "exercise_bike.flac",
        tmp_path / "README.md",
    )
    found = {(clip.corpus, clip.label): clip.split for clip in read_noise(tmp_path)}
    assert found == {
        ("esc10", "rain"): "dev",
        ("esc10", "rooster"): "train",
        ("kitchen20", "stove-fan"): "dev",
        ("kitchen20", "stove-burner"): "train",
        ("speech_commands", "running_tap"): "dev",
        ("speech_commands", "exercise_bike"): "train",
    }
    assert all(clip.is_noise for clip in read_noise(tmp_path))


def test_real_corpora_have_the_stated_sizes_and_splits(shared):
    data = shared / "data"

    def count(clips):
        return len(clips), sum(clip.split == "dev" for clip in clips)

    ocean, noise = read_speechocean762(data / "speechocean762"), read_noise(data / "noise")
    assert count(read_grid(data / "grid_s1")) == (950, 100)
    assert count(read_grid(data / "grid_unseen")) == (6, 6)
    assert count(read_lrw_ar(data / "lrw_ar")) == (1865, 210)
    assert not any(clip.speaker == "unknown" for clip in read_lrw_ar(data / "lrw_ar"))
    assert len(ocean) == 1662
    assert len({clip.speaker for clip in ocean}) == 131
    speakers = {split: {c.speaker for c in ocean if c.split == split} for split in ("train", "dev")}
    assert not speakers["train"] & speakers["dev"]
    counts = Counter(clip.corpus for clip in noise)
    assert (counts["esc10"], counts["kitchen20"]) == (320, 733)
    assert counts["speech_commands"] == 4
    assert {clip.label for clip in noise if clip.split == "dev"} == set(HELD_OUT_NOISES)


# Decoding


def test_decode_averages_resamples_and_keeps_the_level(tmp_path):
    clip = speech(tmp_path / "a.wav", rate_hz=44100, channels=2, seconds=1.0)
    samples = decode(clip)
    assert samples.dtype == np.float32
    assert abs(samples.size - RATE_HZ) <= 1
    middle = samples[2000:-2000]
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(samples.size) / RATE_HZ)[2000:-2000]
    assert np.abs(middle - expected).max() < 1e-3  # the high-pass has no delay, the level stays


def test_decode_removes_rumble_from_speech_only(tmp_path):
    path = tone(tmp_path / "a.wav", freq_hz=20.0, seconds=1.0)
    rumble = decode(Clip(path, "made_up", "", "train", "hum"))
    assert np.std(rumble) == pytest.approx(0.25 / np.sqrt(2), rel=0.01)
    assert np.std(decode(Clip(path, "made_up", "anna", "train"))[4000:-4000]) < 1e-3
    kept = decode(Clip(path, "made_up", "anna", "train"), highpass_hz=None)
    np.testing.assert_array_equal(kept, rumble)


def test_highpass_has_its_stated_corner():
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    at_corner = highpass(np.sin(2 * np.pi * 70 * time_s), RATE_HZ, 70.0)[RATE_HZ:-RATE_HZ]
    assert np.std(at_corner) * np.sqrt(2) == pytest.approx(0.5, rel=0.01)


def test_highpass_takes_very_short_clips():
    assert highpass(np.ones(3), RATE_HZ).shape == (3,)


@pytest.mark.parametrize(
    ("samples", "message"), [([], "holds 0 samples"), ([0.1, np.nan, 0.1], "NaN or infinite")]
)
def test_decode_rejects_broken_clips(tmp_path, samples, message):
    soundfile.write(tmp_path / "a.wav", np.array(samples), RATE_HZ, subtype="FLOAT")
    with pytest.raises(ValueError, match=message):
        decode(Clip(tmp_path / "a.wav", "made_up", "anna", "train"))


def test_decode_names_a_missing_clip(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        decode(Clip(tmp_path / "absent.wav", "made_up", "anna", "train"))


# What is bundled for the demo


def test_bundled_recordings_are_small_mono_and_attributed():
    files = sorted(path for path in BUNDLED.iterdir() if path.name != "ATTRIBUTION.md")
    credits = (BUNDLED / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert {path.name for path in files} == {
        *("speech.flac", "speech.mkv", "mouth.mkv", "mouth_in_red.mkv"),
        *("rain.flac", "clock_tick.flac", "running_tap.flac"),
    }
    assert sum(path.stat().st_size for path in files) < 1_500_000
    for path in files:
        assert f"`{path.name}`" in credits
        if path.suffix == ".flac":
            info = soundfile.info(path)
            assert (info.samplerate, info.channels) == (RATE_HZ, 1)
            assert 2.5 < info.duration <= 5.0


def test_bundled_speech_is_the_sound_of_the_bundled_video():
    sound, video = (
        decode(Clip(BUNDLED / name, "grid", "grid_brbk7n", "dev"))
        for name in ("speech.flac", "speech.mkv")
    )
    np.testing.assert_allclose(sound, video, atol=1e-6)
    assert np.std(sound) > 0.01


def test_any_folder_of_recordings(tmp_path):
    tone = np.sin(np.arange(1600)).astype("float32")
    for number in range(40):
        folder = tmp_path / "mine" / f"speaker{number}"
        folder.mkdir(parents=True)
        soundfile.write(folder / "one.wav", tone, RATE_HZ)
        soundfile.write(folder / "two.flac", tone, RATE_HZ)
    clips = read_recordings(tmp_path / "mine")
    assert len(clips) == 80 and {clip.corpus for clip in clips} == {"mine"}
    by_speaker = {
        clip.speaker: {c.split for c in clips if c.speaker == clip.speaker} for clip in clips
    }
    assert len(by_speaker) == 40 and all(len(splits) == 1 for splits in by_speaker.values())
    assert 0 < sum(splits == {"dev"} for splits in by_speaker.values()) < 10
    flat = read_recordings(tmp_path / "mine" / "speaker0")
    assert [clip.speaker for clip in flat] == ["unknown"] * 2
    with pytest.raises(FileNotFoundError, match="recordings: <folder>/<clip>"):
        read_recordings(tmp_path / "none")
