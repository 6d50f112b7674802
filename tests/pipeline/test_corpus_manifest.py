"""Manifests of corpora: what is read, what is refused, and what is written of enhanced files."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avse_ppl import Audio, ComplexNormal
from avse_ppl.pipeline.corpus_manifest import (
    EnhancedFile,
    read_corpus_manifest,
    write_corpus_manifest,
)
from avse_ppl.pipeline.enhance_files import enhance_files
from avse_ppl.pipeline.jobs import plan_manifest
from avse_ppl.pipeline.spans import cut_span
from tests.helpers import BUNDLED, RATE_HZ, write_recording

SOURCE = {"type": "file", "channels": [0], "source": "a.wav"}
RECORDING = {"id": "rec", "sources": [SOURCE], "sampling_rate": 48000, "num_samples": 48000,
             "duration": 1.0}  # fmt: skip
CUT = {"id": "cut-1", "start": 0.25, "duration": 0.5, "channel": 0, "type": "MonoCut",
       "supervisions": [{"id": "s", "recording_id": "rec", "start": 0, "text": "bin"}],
       "features": {"num_frames": 3}, "recording": RECORDING}  # fmt: skip


def steady(frames):
    return ComplexNormal(0.0, 0.5)


QUICK = {"speech": "gaussian", "noise": steady, "inference": "exact", "draws": 2, "device": "cpu"}


def write_lines(path, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_items(path, *rows):
    return read_corpus_manifest(write_lines(path, *rows)).items


def refuse(path, *rows):
    with pytest.raises(ValueError) as caught:
        read_items(path, *rows)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


# --- read ----------------------------------------------------------------------------------------


def test_scp(tmp_path):
    items = read_items(tmp_path / "wav.scp", "u1  a/1 take.wav ", "", "u2\t/data/2.flac")
    assert [(i.id, i.audio, i.line, i.absolute) for i in items] == [
        ("u1", tmp_path / "a" / "1 take.wav", 1, False),
        ("u2", Path("/data/2.flac"), 3, True),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("column", ["audio", "path", "audio_filepath"])
def test_table(tmp_path, separator, column):
    rows = [("text", column, "id", "video", "offset"), ("x", "a.wav", "u1", "a.mkv", "0.5"),
            ("", "", "", "", ""), ("y", "b.c.wav", "", "", "")]  # fmt: skip
    one, two = read_items(tmp_path / "m.csv", *(separator.join(row) for row in rows))
    assert (one.id, one.audio, one.video) == ("u1", tmp_path / "a.wav", tmp_path / "a.mkv")
    assert (one.start_s, one.duration_s) == (0.5, None)
    assert (two.id, two.video, two.start_s, two.line) == ("b.c", None, 0.0, 4)


def test_nemo_and_lhotse(tmp_path):
    (nemo,) = read_items(
        tmp_path / "m.json", {"audio_filepath": "a.wav", "offset": 0.5, "duration": 2, "id": 7}
    )
    assert (nemo.id, nemo.start_s, nemo.duration_s) == ("7", 0.5, 2.0)
    (bare,) = read_items(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "offset": None})
    assert (bare.id, bare.start_s, bare.duration_s) == ("a", 0.0, None)
    (cut,) = read_items(tmp_path / "cuts.jsonl", CUT)
    assert (cut.id, cut.audio, cut.start_s, cut.duration_s) == (
        "cut-1", tmp_path / "a.wav", 0.25, 0.5,
    )  # fmt: skip
    (recording,) = read_items(tmp_path / "recordings.jsonl", RECORDING)
    assert (recording.id, recording.start_s, recording.duration_s) == ("rec", 0.0, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wav.scp", "u1 a.wav\nu2 b.wav\n"),
        ("m.csv", "id,audio,text\nu1,a.wav,ä\nu2,b.wav,\n"),
        ("m.jsonl", '{"audio_filepath": "a.wav", "id": "u1"}\n{"audio_filepath": "b.wav", '
         '"id": "u2"}\n'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["mark", "crlf", "both", "gz", "no end"])
def test_marks_and_ends_of_lines(tmp_path, name, text, how):
    data = text.removesuffix("\n" if how == "no end" else "").encode()
    if how in ("crlf", "both"):
        data = data.replace(b"\n", b"\r\n")
    if how in ("mark", "both"):
        data = b"\xef\xbb\xbf" + data
    path = tmp_path / (name + ".gz" * (how == "gz"))
    path.write_bytes(gzip.compress(data) if how == "gz" else data)
    items = read_corpus_manifest(path).items
    assert [(i.id, i.audio.name) for i in items] == [("u1", "a.wav"), ("u2", "b.wav")]


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("wav.scp", ["u1 a.wav", "u2 sox b.wav -t wav - |"], "line 2: 'sox b.wav .*is a command"),
        ("wav.scp", ["u1"], "line 1: expected 'utterance path', found 'u1'"),
        ("wav.scp", ["u1 wav.ark:123"], "line 1: .*part of an archive"),
        ("wav.scp", ["u1 -"], "line 1: .*or a stream"),
        ("wav.scp", ["u1 https://x.org/a.wav"], "line 1: .*is an address"),
        ("wav.scp", ["", " "], "it lists no recording"),
        ("wav.scp", ["a/b a.wav"], "line 1: the id 'a/b' cannot name a file"),
        ("wav.scp", [".. a.wav"], r"line 1: the id '\.\.' cannot name a file"),
        ("wav.scp", ["u" * 201 + " a.wav"], "line 1: the id .*1 to 200 printable"),
        ("wav.scp", ["u1 a.wav", "u2 b.wav", "u1 c.wav"], "lines 1 and 3 have the same id 'u1'"),
        ("m.csv", [""], "expected a first line with one of the columns audio, .*found nothing"),
        ("m.csv", ["id,file", "u1,a.wav"], "with one of the columns audio, .*found id, file"),
        ("m.csv", ["audio,path", "a.wav,a.wav"], "one of the columns audio, .*found audio, path"),
        ("m.csv", ["audio,id,id", "a.wav,1,2"], "the column 'id' is there twice"),
        ("m.csv", ["audio,id"], "it lists no recording"),
        ("m.csv", ["audio,id", "a.wav,u1", "b.wav"], "line 3 has not the 2 cells"),
        ("m.csv", ["audio,id", "a.wav,u1,x"], "line 2 has not the 2 cells"),
        ("m.csv", ["audio,id", ",u1"], "line 2: expected the path of a recording, found None"),
        ("m.csv", ["audio,id", '"a.wav,u1'], "unexpected end of data"),
        ("m.csv", ["audio", "x/a.wav", "y/a.flac"], "lines 2 and 3 have the same id 'a'"),
        ("m.csv", ["audio,start", "a.wav,0.5"], "line 2: 'start' looks like a span"),
        ("m.csv", ["audio,offset", "a.wav,soon"], "line 2, offset: expected seconds, found 'soon'"),
        ("m.jsonl", [{"audio_filepath": "a.wav"}, "{"], "line 2 is not JSON: "),
        ("m.jsonl", ["[" * 100_000], "line 1 is not JSON: it is nested too deep"),
        ("m.jsonl", ["[1]"], "line 1 is a list, expected an object"),
        ("m.jsonl", [{"text": "x"}], "line 1: expected audio_filepath .*found 'text'"),
        ("m.jsonl", [{"audio_filepath": ["a"]}], r"line 1: expected the path .*found \['a'\]"),
        ("m.jsonl", [{"audio_filepath": "a", "id": [1]}], "line 1: expected a text as id"),
        ("m.jsonl", [{"audio_filepath": "a", "video": 3}], "expected the path of a video, found 3"),
        ("m.jsonl", [{"audio_filepath": "a", "offset": -1}], "line 1, offset: .*found -1"),
        ("m.jsonl", [{"audio_filepath": "a", "duration": 0}], "line 1, duration: .*found 0"),
        ("m.jsonl", [{"audio_filepath": "a", "duration": True}], "line 1, duration: .*found True"),
        ("m.jsonl", ['{"audio_filepath": "a", "duration": NaN}'], "line 1, duration: .*found nan"),
        ("m.jsonl", [{"audio_filepath": "a", "channel_selector": 1}], "channel_selector cannot"),
        ("m.jsonl", [{"audio_filepath": "a"}, CUT], r"mixes kinds, nemo \(line 1\) and lhotse"),
        ("m.jsonl", [{**CUT, "type": "MixedCut"}], "line 1: a MixedCut is no recording"),
        ("m.jsonl", [{"id": "x", "tracks": []}], "line 1: a MixedCut is no recording"),
        ("m.jsonl", [{**CUT, "channel": 1}], r"takes channel 1 of \[0\], which cannot be honoured"),
        ("m.jsonl", [{**CUT, "recording": "rec"}], "expected an object as recording, found 'rec'"),
        ("m.jsonl", [{**RECORDING, "sources": []}], "expected one source .*found nothing"),
        ("m.jsonl", [{**RECORDING, "sources": [3]}], "expected a list of objects as sources"),
        ("m.jsonl", [{**RECORDING, "sources": [{**SOURCE, "type": "command"}]}], "found command"),
        ("m.jsonl", [{**RECORDING, "transforms": [{"name": "Speed"}]}], "has transforms"),
        ("m.jsonl", [""], "it lists no recording"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured(tmp_path, name, rows, message):
    text = refuse(tmp_path / name, *rows)
    assert re.match(f".*{message}", text), text


def test_what_is_no_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"a manifest ending in .scp, .* found '.*list.txt'"):
        read_corpus_manifest(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match=r"no manifest at .*there is no such file"):
        read_corpus_manifest(tmp_path / "wav.scp")
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        read_corpus_manifest(tmp_path / "m.csv")
    (tmp_path / "x.scp").write_bytes("u1 ä.wav".encode("latin-1"))
    with pytest.raises(ValueError, match="it is not text in UTF-8"):
        read_corpus_manifest(tmp_path / "x.scp")
    for data in (b"u1 a.wav", gzip.compress(b"u1 a.wav")[:-4]):
        (tmp_path / "x.scp.gz").write_bytes(data)
        with pytest.raises(ValueError, match=r"it is not a whole \.gz file"):
            read_corpus_manifest(tmp_path / "x.scp.gz")


# --- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_s", "duration_s", "span"),
    [
        (0.0, None, (0, 1600)), (0.02, None, (320, 1600)), (0.02, 0.05, (320, 1120)),
        (0.0, 0.095, (0, 1600)),  # rounded lengths of whole recordings
        (0.0, 0.115, (0, 1600)), (0.02, 0.095, (320, 1600)),
        (0.0, 0.085, (0, 1360)), (0.02, 0.075, (320, 1520)),  # meant
    ],
)  # fmt: skip
def test_spans(start_s, duration_s, span):
    audio = Audio(np.arange(3200, dtype="float32").reshape(2, 1600), RATE_HZ)
    cut = cut_span(audio, start_s, duration_s)
    np.testing.assert_array_equal(cut.samples, audio.samples[:, slice(*span)])


@pytest.mark.parametrize("span", [(0.1, None), (0.0, 0.13), (0.05, 0.08)])
def test_spans_beyond_the_recording(span):
    with pytest.raises(ValueError, match=r"is not within the recording, which is 0\.1 s long"):
        cut_span(Audio(np.ones(1600, "float32"), RATE_HZ), *span)


# --- written -------------------------------------------------------------------------------------


def test_what_is_written(tmp_path):
    # Whatever else a row says stays; an absolute place stays absolute.
    cases = {
        "wav.scp": ["u1 a.wav", "u2 /x/b.wav"],
        "m.csv": ["id;audio;text;offset;duration", 'u1;a.wav;"x;y";0.5;1', "u2;/x/b.wav;;;"],
        "m.jsonl": [{"audio_filepath": "a.wav", "id": "u1", "text": "ä", "offset": 1},
                    {"audio_filepath": "/x/b.wav", "id": "u2"}],
    }  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    files = {name: EnhancedFile(out / f"{name}.wav", 8000, RATE_HZ) for name in ("u1", "u2")}
    texts = {}
    for name, rows in cases.items():
        manifest = read_corpus_manifest(write_lines(tmp_path / name, *rows))
        texts[name] = write_corpus_manifest(manifest, files, out / name).read_text("utf-8")
        assert [i.id for i in read_corpus_manifest(out / name).items] == ["u1", "u2"]
        write_corpus_manifest(manifest, {"u2": files["u2"]}, out / name)
        assert [i.id for i in read_corpus_manifest(out / name).items] == ["u2"]
    root = out.resolve()
    assert texts["wav.scp"] == f"u1 u1.wav\nu2 {root}/u2.wav\n"
    assert texts["m.csv"] == (
        f'id;audio;text;offset;duration\nu1;u1.wav;"x;y";0;0.5\nu2;{root}/u2.wav;;0;0.5\n'
    )
    one, two = map(json.loads, texts["m.jsonl"].splitlines())
    assert one == {
        "audio_filepath": "u1.wav", "id": "u1", "text": "ä", "offset": 0.0, "duration": 0.5
    }  # fmt: skip
    assert two == {"audio_filepath": f"{root}/u2.wav", "id": "u2", "duration": 0.5}


def test_videos_stay_in_reach(tmp_path):
    rows = ["audio,video", "a.wav,lips/a.mkv", "b.wav,/x/b.mkv", "c.wav,"]
    manifest = read_corpus_manifest(write_lines(tmp_path / "m.csv", *rows))
    (tmp_path / "out").mkdir()
    files = {name: EnhancedFile(tmp_path / f"out/{name}.wav", 8, 8000) for name in "abc"}
    path = write_corpus_manifest(manifest, files, tmp_path / "out" / "m.csv.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    assert text == "audio,video\na.wav,../lips/a.mkv\nb.wav,/x/b.mkv\nc.wav,\n"
    videos = [item.video for item in read_corpus_manifest(path).items]
    assert videos[0] is not None and videos[0].resolve() == (tmp_path / "lips/a.mkv").resolve()


def test_cuts_become_recordings_of_their_own(tmp_path):
    write_recording(tmp_path / "a.wav", 1.0, rate_hz=48000)
    plan = plan_manifest(write_lines(tmp_path / "cuts.jsonl", CUT), tmp_path / "out")
    (outcome,) = enhance_files(plan, **QUICK)
    assert outcome.status == "enhanced", outcome.error
    row = json.loads((tmp_path / "out" / "cuts.jsonl").read_text())
    assert (row["id"], row["start"], row["duration"]) == ("cut-1", 0.0, 0.5)
    assert row["recording"] == {
        "id": "cut-1", "sources": [{**SOURCE, "source": "cut-1.wav"}], "sampling_rate": RATE_HZ,
        "num_samples": 8000, "duration": 0.5,
    }  # fmt: skip
    assert row["supervisions"] == [{**CUT["supervisions"][0], "recording_id": "cut-1"}]
    assert "features" not in row
    assert soundfile.info(tmp_path / "out" / "cut-1.wav").frames == 8000


# --- enhanced ------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    """Two recordings, one line of a missing one, one of a folder."""
    for seed, name in enumerate("ab"):
        write_recording(tmp_path / "in" / f"{name}.wav", 0.2, seed=seed)
    rows = ["u1 in/a.wav", "u2 in/none.wav", "u3 in/b.wav", "u4 in"]
    return write_lines(tmp_path / "wav.scp", *rows)


def run(plan, **changes):
    return {o.job.output.name: o.status for o in enhance_files(plan, **{**QUICK, **changes})}


def test_the_rest_is_enhanced_and_listed(corpus, tmp_path):
    plan = plan_manifest(corpus, tmp_path / "out", tmp_path / "nc")
    first = {"u1.wav": "enhanced", "u2.wav": "failed", "u3.wav": "enhanced", "u4.wav": "failed"}
    assert run(plan) == first
    assert (tmp_path / "out" / "wav.scp").read_text() == "u1 u1.wav\nu3 u3.wav\n"
    assert sorted(os.listdir(tmp_path / "nc")) == ["u1.nc", "u3.nc"]
    # Resumed: what is finished is kept, and listed all the same.
    (tmp_path / "out" / "wav.scp").unlink()
    write_recording(tmp_path / "in" / "none.wav", seed=3)
    assert run(plan) == {**first, "u1.wav": "kept", "u2.wav": "enhanced", "u3.wav": "kept"}
    assert (tmp_path / "out" / "wav.scp").read_text() == "u1 u1.wav\nu2 u2.wav\nu3 u3.wav\n"


def test_another_span_is_another_job(tmp_path):
    write_recording(tmp_path / "a.wav", 0.4)
    row = {"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.1}
    expected, _ = soundfile.read(tmp_path / "a.wav")
    for change, status in (({}, "enhanced"), ({}, "kept"), ({"duration": 0.2}, "enhanced"),
                           ({"duration": 0.2}, "kept"), ({"offset": 0.2}, "enhanced")):  # fmt: skip
        row |= change
        plan = plan_manifest(write_lines(tmp_path / "m.jsonl", row), tmp_path / "out")
        assert run(plan) == {"a.wav": status}, row
    enhanced, _ = soundfile.read(tmp_path / "out" / "a.wav")
    assert len(enhanced) == 3200
    # A Wiener filter of white noise keeps its waveform: that of the span, and of no other.
    assert np.corrcoef(enhanced, expected[3200:6400])[0, 1] > 0.3
    assert abs(np.corrcoef(enhanced, expected[:3200])[0, 1]) < 0.2


def test_nothing_enhanced_nothing_listed(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    plan = plan_manifest(write_lines(tmp_path / "wav.scp", "u1 a.wav"), tmp_path / "out")
    assert run(plan) == {"u1.wav": "failed"}
    assert not (tmp_path / "out" / "wav.scp").exists()


def test_manifests_of_other_origin_are_not_overwritten(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "wav.scp").write_text("mine")
    plan = plan_manifest(corpus, tmp_path / "out")
    with pytest.raises(ValueError, match=r"out/wav\.scp' exist but were not written by this"):
        run(plan)
    assert run(plan, force=True)["u1.wav"] == "enhanced"
    with pytest.raises(ValueError, match=r"wav\.scp' would overwrite an input"):
        plan_manifest(corpus, tmp_path)
    log = write_lines(tmp_path / "enhance.jsonl", {"audio_filepath": "in/a.wav"})
    with pytest.raises(ValueError, match=r"two outputs have the name .*enhance\.jsonl"):
        plan_manifest(log, tmp_path / "out")
    with pytest.raises(ValueError, match=r"go to a folder, but '.*e\.wav' names a file"):
        plan_manifest(corpus, tmp_path / "e.wav")


def test_no_recording_is_there(tmp_path):
    path = write_lines(tmp_path / "wav.scp", "u1 a.wav", "u2 b.wav")
    with pytest.raises(FileNotFoundError, match=r"none of the 2 recordings .*relative paths are"):
        plan_manifest(path, tmp_path / "out")


def test_a_video_column_conditions_the_prior(tmp_path):
    for name in ("speech.flac", "mouth.mkv"):
        (tmp_path / name).symlink_to(BUNDLED / name)
    rows = ["audio,video", "speech.flac,mouth.mkv"]
    plan = plan_manifest(write_lines(tmp_path / "m.csv", *rows), tmp_path / "out")
    assert plan.jobs[0].video == tmp_path / "mouth.mkv"
    with pytest.raises(ValueError, match="audio-only"):  # a video is not given to be ignored
        run(plan)
