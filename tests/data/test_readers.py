"""Readers of published corpora, on small trees laid out as they are published."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from avse_ppl.data import (
    read_avspeech,
    read_grid,
    read_lrs3,
    read_ntcd_timit,
    read_roi,
    read_tcd_timit,
    read_voicebank_demand,
    read_wsj0_qut,
)
from avse_ppl.data.readers.folders import is_held_out
from avse_ppl.data.readers.grid import spell_transcript


def touch(folder, *names, text=""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def told(clips, folder, *fields):
    """What the clips say, with paths relative to the folder."""

    def short(value):
        return value.relative_to(folder).as_posix() if hasattr(value, "relative_to") else value

    return [tuple(short(getattr(clip, field)) for field in fields) for clip in clips]


READERS = [read_avspeech, read_grid, read_lrs3, read_ntcd_timit, read_tcd_timit]
READERS += [read_voicebank_demand, read_wsj0_qut]


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_folder_is_named_with_the_layout(reader, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found nothing.*expected .*<folder>/"):
        reader(tmp_path / "absent")


@pytest.mark.parametrize("reader", [r for r in READERS if r is not read_avspeech])
def test_an_empty_folder_is_named_with_the_layout(reader, tmp_path):
    with pytest.raises(ValueError, match=r"expected .*<folder>/.*an empty folder"):
        reader(tmp_path)


# GRID


def test_grid_of_several_speakers_is_split_by_speaker(tmp_path):
    touch(
        tmp_path,
        *(f"s{n}/bbaf2n.mpg" for n in (1, 3, 33)),
        *("s3/audio/bbaf2n.wav", "s3/align/bbaf2n.align", "s4/video/mpg_6000/lwbsza.mpg"),
    )
    assert told(read_grid(tmp_path), tmp_path, "path", "video", "speaker", "split") == [
        ("s1/bbaf2n.mpg", "s1/bbaf2n.mpg", "grid_s1", "test"),
        ("s3/audio/bbaf2n.wav", "s3/bbaf2n.mpg", "grid_s3", "train"),
        ("s4/video/mpg_6000/lwbsza.mpg",) * 2 + ("grid_s4", "train"),
        ("s33/bbaf2n.mpg", "s33/bbaf2n.mpg", "grid_s33", "dev"),
    ]


def test_grid_of_names_that_begin_with_the_speaker(tmp_path):
    touch(tmp_path, *(f"s{n}_bbaf2n.opus" for n in (9, 30, 31, 40)))
    assert told(read_grid(tmp_path), tmp_path, "path", "speaker", "split", "transcript") == [
        ("s30_bbaf2n.opus", "grid_s30", "dev", "bin blue at f two now"),
        ("s31_bbaf2n.opus", "grid_s31", "dev", "bin blue at f two now"),
        ("s40_bbaf2n.opus", "grid_s40", "dev", "bin blue at f two now"),
        ("s9_bbaf2n.opus", "grid_s9", "train", "bin blue at f two now"),
    ]


def test_grid_speakers_without_clips(tmp_path):
    (tmp_path / "s1").mkdir()
    with pytest.raises(ValueError, match=r"no clips .*1 entries: s1"):
        read_grid(tmp_path)


@pytest.mark.parametrize(
    ("stem", "text"),
    [
        ("lwbsza", "lay white by s zero again"),
        ("SWIZ3N", "set white in z three now"),
        ("xwbsza", ""),
        ("a", ""),
    ],
)
def test_grid_names_spell_their_sentence(stem, text):
    assert spell_transcript(stem) == text


# TCD-TIMIT and NTCD-TIMIT


def test_tcd_timit(tmp_path):
    speakers = ["volunteers/01M", "volunteers/08F", "volunteers/41M", "lipspeakers/Lipspkr1"]
    for speaker in speakers:
        touch(tmp_path, f"{speaker}/Clips/straightcam/sa1.mp4", f"{speaker}/Clips/30degcam/sa1.mp4")
    touch(tmp_path, "volunteers/01M/Clips/straightcam/sa1.wav")
    touch(tmp_path, "volunteers/01M/Clips/straightcam/sa1.txt", text="0 46797 She had.\n")
    clips = read_tcd_timit(tmp_path)
    at = "Clips/straightcam/sa1"
    assert told(clips, tmp_path, "speaker", "split", "path", "video", "transcript") == [
        (
            *("tcd_timit_Lipspkr1", "train"),
            *(f"lipspeakers/Lipspkr1/{at}.mp4", f"lipspeakers/Lipspkr1/{at}.mp4", ""),
        ),
        (
            *("tcd_timit_01M", "train"),
            *(f"volunteers/01M/{at}.wav", f"volunteers/01M/{at}.mp4", "She had."),
        ),
        (
            *("tcd_timit_08F", "dev"),
            *(f"volunteers/08F/{at}.mp4", f"volunteers/08F/{at}.mp4", ""),
        ),
        (
            *("tcd_timit_41M", "test"),
            *(f"volunteers/41M/{at}.mp4", f"volunteers/41M/{at}.mp4", ""),
        ),
    ]
    assert len(read_tcd_timit(tmp_path / "volunteers", view="30degcam")) == 3
    with pytest.raises(ValueError, match="with the camera side"):
        read_tcd_timit(tmp_path, view="side")


def test_tcd_timit_sound_without_video_and_without_sets(tmp_path):
    touch(tmp_path, "02M/straightcam/sa1.wav", "09F/Clips/straightcam/sa1.wav")
    assert told(read_tcd_timit(tmp_path), tmp_path, "speaker", "split", "video") == [
        ("tcd_timit_02M", "train", None),
        ("tcd_timit_09F", "dev", None),
    ]


@pytest.fixture
def ntcd(tmp_path):
    for speaker in ("01M", "08F", "55F"):
        touch(
            tmp_path,
            f"Clean/volunteers/{speaker}/straightcam/sa1.wav",
            f"Clean/volunteers/{speaker}/straightcam/si1.wav",
            f"Babble/-5/volunteers/{speaker}/straightcam/sa1.wav",
            f"Babble/5/volunteers/{speaker}/straightcam/si1.wav",
        )
    touch(tmp_path, "matlab_raw/train/01M/sa1.mat", "matlab_raw/dev/55F/sa1.mat")
    touch(tmp_path, "video/volunteers/08F/straightcam/si1Raw.npy")
    return tmp_path


def test_ntcd_timit_clean(ntcd):
    clips = read_ntcd_timit(ntcd)
    assert told(clips, ntcd, "speaker", "split", "roi", "noisy") == [
        ("tcd_timit_01M", "train", "matlab_raw/train/01M/sa1.mat", None),
        ("tcd_timit_01M", "train", None, None),
        ("tcd_timit_08F", "dev", None, None),
        ("tcd_timit_08F", "dev", "video/volunteers/08F/straightcam/si1Raw.npy", None),
        ("tcd_timit_55F", "dev", "matlab_raw/dev/55F/sa1.mat", None),
        ("tcd_timit_55F", "dev", None, None),
    ]


def test_ntcd_timit_in_noise(ntcd):
    clips = read_ntcd_timit(ntcd, "Babble", -5)
    assert told(clips, ntcd, "path", "noisy") == [
        (
            f"Clean/volunteers/{speaker}/straightcam/sa1.wav",
            f"Babble/-5/volunteers/{speaker}/straightcam/sa1.wav",
        )
        for speaker in ("01M", "08F", "55F")
    ]


@pytest.mark.parametrize(
    ("noise", "snr_db", "message"),
    [
        ("Rain", 0, "no noise 'Rain'.*Babble"),
        ("Babble", None, "expected both or none"),
        (None, 5, "expected both or none"),
        ("Babble", 7, "one of -5, 0"),
        ("Car", 0, "with Car at 0 dB"),
    ],
)
def test_ntcd_timit_without_that_noise(ntcd, noise, snr_db, message):
    with pytest.raises(ValueError, match=message):
        read_ntcd_timit(ntcd, noise, snr_db)


@pytest.mark.parametrize("stored", ["mat", "npy", "floats"])
def test_mouth_crops_come_upright(tmp_path, stored):
    crops = np.random.default_rng(0).integers(2, 255, (5, 67, 67)).astype(np.uint8)
    columns = crops.transpose(0, 2, 1).reshape(5, -1)  # as MATLAB stores a matrix
    path = tmp_path / f"sa1.{'mat' if stored == 'mat' else 'npy'}"
    if stored == "mat":
        with h5py.File(path, "w") as file:
            file["data"] = columns
    else:
        np.save(path, columns if stored == "npy" else columns.T / 255.0)
    np.testing.assert_array_equal(read_roi(path), crops)


def test_mouth_crops_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        read_roi(tmp_path / "absent.npy")
    np.save(tmp_path / "a.npy", np.zeros((5, 68 * 68)))
    with pytest.raises(ValueError, match=r"\(5, 4624\); expected \(frame, 4489\)"):
        read_roi(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.full((5, 67 * 67), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        read_roi(tmp_path / "a.npy")
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"no file of MATLAB 7\.3"):
        read_roi(tmp_path / "a.mat")
    with h5py.File(tmp_path / "two.mat", "w") as file:
        file["a"] = file["b"] = np.zeros(3)
    with pytest.raises(ValueError, match="holds 2 arrays"):
        read_roi(tmp_path / "two.mat")


def test_published_mouth_crops_are_read(shared):
    crops = read_roi(shared / "peers" / "sample" / "v.npy")
    assert crops.shape == (143, 67, 67)
    lips = crops.astype(float).mean(0)
    # The closed mouth is a dark line from left to right: rows differ more than columns.
    assert np.std(lips.mean(1)) > 2 * np.std(lips.mean(0))


# AVSpeech


def test_avspeech_lists_rows_that_were_downloaded(tmp_path):
    touch(
        tmp_path,
        "avspeech_train.csv",
        text="AAAAAAAAAA1,30.0,33.5,0.5,0.4\nAAAAAAAAAA1,90.1,99.0,0.5,0.4\n"
        "BB_BBB-BBB2,7.24,12.0,0.1,0.2\ngone_______,0.0,3.0,0.1,0.2\n",
    )
    touch(tmp_path, "avspeech_test.csv", text="CCCCCCCCCC3,1.0,4.0,0.5,0.5\n")
    touch(
        tmp_path,
        "train/AAAAAAAAAA1_090.100000-099.000000.mp4",
        "train/AAAAAAAAAA1_30_33.mp4",
        "train/AAAAAAAAAA1_50.0_53.0.mp4",  # no such row
        "train/AAAAAAAAAA1.mp4",  # which of the two?
        *("train/BB_BBB-BBB2.mp4", "test/CCCCCCCCCC3_1.0.mp4", "train/notes.txt"),
    )
    clips = read_avspeech(tmp_path)
    assert told(clips, tmp_path, "video", "speaker", "split") == [
        ("test/CCCCCCCCCC3_1.0.mp4", "avspeech_CCCCCCCCCC3", "test"),
        ("train/AAAAAAAAAA1_090.100000-099.000000.mp4", "avspeech_AAAAAAAAAA1", "train"),
        ("train/AAAAAAAAAA1_30_33.mp4", "avspeech_AAAAAAAAAA1", "train"),
        ("train/BB_BBB-BBB2.mp4", "avspeech_BB_BBB-BBB2", "train"),
    ]


def test_avspeech_with_bad_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table in .*an empty folder"):
        read_avspeech(tmp_path)
    touch(tmp_path, "avspeech_train.csv", text="id,start,end,x,y\nAAAAAAAAAA1,1.0,2.0,0.5,0.5\n")
    with pytest.raises(ValueError, match="no clips"):
        read_avspeech(tmp_path)
    touch(tmp_path, "AAAAAAAAAA1.mp4")
    assert len(read_avspeech(tmp_path)) == 1
    touch(tmp_path, "avspeech_train.csv", text="AAAAAAAAAA1,1.0,2.0,0.5,0.5\nBBBBBBBBBB2,one\n")
    with pytest.raises(ValueError, match=r"row 2 of .*'one'.*expected video, start"):
        read_avspeech(tmp_path)


# LRS3


def test_lrs3(tmp_path):
    held_out = next(f"held{n}" for n in range(1000) if is_held_out(f"held{n}", 20))
    trained = next(f"train{n}" for n in range(1000) if not is_held_out(f"train{n}", 20))
    for name in (f"pretrain/{held_out}", f"trainval/{held_out}", f"trainval/{trained}", "test/x"):
        touch(tmp_path, f"{name}/00001.mp4")
        touch(tmp_path, f"{name}/00001.txt", text="Text:  AND SO ON\nConf:  4\n\nWORD START END\n")
    assert told(read_lrs3(tmp_path), tmp_path, "video", "speaker", "split", "transcript") == [
        (f"pretrain/{held_out}/00001.mp4", f"lrs3_{held_out}", "dev", "AND SO ON"),
        ("test/x/00001.mp4", "lrs3_x", "test", "AND SO ON"),
        (f"trainval/{held_out}/00001.mp4", f"lrs3_{held_out}", "dev", "AND SO ON"),
        (f"trainval/{trained}/00001.mp4", f"lrs3_{trained}", "train", "AND SO ON"),
    ]


# Clean and noisy


def test_voicebank_demand(tmp_path):
    for part, speaker in (("train", "p227"), ("train", "p287"), ("test", "p232")):
        spk = "_28spk" if part == "train" else ""
        touch(tmp_path, f"clean_{part}set{spk}_wav/{speaker}_001.wav")
        touch(tmp_path, f"noisy_{part}set{spk}_wav/{speaker}_001.wav")
    touch(tmp_path, "trainset_28spk_txt/p227_001.txt", text="Please call Stella.\n")
    clips = read_voicebank_demand(tmp_path)
    assert told(clips, tmp_path, "noisy", "speaker", "split", "transcript") == [
        ("noisy_testset_wav/p232_001.wav", "voicebank_p232", "test", ""),
        *(
            (f"noisy_trainset_28spk_wav/{speaker}_001.wav", f"voicebank_{speaker}", split, text)
            for speaker, split, text in (
                ("p227", "train", "Please call Stella."),
                ("p287", "dev", ""),
            )
        ),
    ]
    assert clips[0].path == tmp_path / "clean_testset_wav" / "p232_001.wav"


def test_wsj0_qut(tmp_path):
    touch(
        tmp_path,
        *("WSJ0_SE/wsj0_si_tr_s/011/011a0101.wav", "WSJ0_SE/wsj0_si_dt_05/050/050c0101.wav"),
        *("WSJ0_SE/wsj0_si_et_05/440/440c020a.wav", "WSJ0_SE/readme/x.wav"),
    )
    clean = read_wsj0_qut(tmp_path)
    assert [(clip.speaker, clip.split, clip.noisy) for clip in clean] == [
        ("wsj0_050", "dev", None),
        ("wsj0_440", "test", None),
        ("wsj0_011", "train", None),
    ]
    touch(tmp_path, "QUT_WSJ0/other.wav")
    with pytest.raises(ValueError, match="no clips"):
        read_wsj0_qut(tmp_path)
    touch(
        tmp_path,
        *("QUT_WSJ0/train/011a0101.wav", "QUT_WSJ0/test/440c020a_CAFE_-5.wav"),
        "QUT_WSJ0/test/440c020a_CAR_0.wav",
    )
    pairs = read_wsj0_qut(tmp_path)
    assert told(pairs, tmp_path, "path", "noisy", "split") == [
        (
            "WSJ0_SE/wsj0_si_et_05/440/440c020a.wav",
            "QUT_WSJ0/test/440c020a_CAFE_-5.wav",
            "test",
        ),
        ("WSJ0_SE/wsj0_si_et_05/440/440c020a.wav", "QUT_WSJ0/test/440c020a_CAR_0.wav", "test"),
        ("WSJ0_SE/wsj0_si_tr_s/011/011a0101.wav", "QUT_WSJ0/train/011a0101.wav", "train"),
    ]


@pytest.mark.parametrize(("reader", "make"), [(read_lrs3, "lrs3"), (read_tcd_timit, "tcd")])
def test_no_speaker_is_on_two_sides(reader, make, tmp_path):
    for speaker in range(60):
        for part in ("pretrain", "trainval"):
            where = f"{part}/{speaker}" if make == "lrs3" else f"volunteers/{speaker:02d}M/{part}"
            name = where if make == "lrs3" else f"{where}/straightcam"
            touch(tmp_path, f"{name}/00001.mp4")
    sides = {}
    for clip in reader(tmp_path):
        sides.setdefault(clip.speaker, set()).add(clip.split)
    assert len(sides) == 60 and all(len(splits) == 1 for splits in sides.values())
