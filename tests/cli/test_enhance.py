"""The front door: help, `enhance`, and how every command reports warnings and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import typer

from avse_ppl import Posterior
from avse_ppl.cli import console
from avse_ppl.pipeline.enhance import Enhancer
from tests.helpers import RATE_HZ, run_cli

COMMANDS = ("enhance", "evaluate", "mix", "train", "import-weights", "models", "doctor")
NOISES = """
import sys
from avse_ppl import ComplexNormal
print("modules may print")

def steady(frames):
    return ComplexNormal(0.0, 0.5)

def wrong_kind(frames):
    return 3.0

def buggy(frames):
    raise RuntimeError("no such luck")
"""


def write(name, seconds=0.2, seed=0, rate_hz=RATE_HZ):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))
    soundfile.write(name, samples, rate_hz)
    return name


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with a recording, and noise models in a module of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write("noisy.wav")
    (tmp_path / "cli_noises.py").write_text(NOISES)
    yield tmp_path
    sys.modules.pop("cli_noises", None)


def enhance(*arguments):
    quick = ("--speech", "gaussian", "--noise", "cli_noises:steady", "--inference", "exact")
    return run_cli("enhance", *quick, "--draws", 2, "--device", "cpu", *arguments)


def refused(result):
    """The one line of an error; nothing but it was printed, and nothing was made."""
    assert result.exit_code == 2, (result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line != "modules may print"]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0].removeprefix("error: ")


# --- tracks --------------------------------------------------------------------------------------


def write_tracks(name, gains):
    """A container with one audio track for each gain; the second is the default one."""
    import av

    samples = 0.1 * np.random.default_rng(0).standard_normal((1, RATE_HZ // 2))
    with av.open(name, "w") as out:
        tracks = [out.add_stream("pcm_f32le", rate=RATE_HZ, layout="mono") for _ in gains]
        for number, track in enumerate(tracks):
            default = av.stream.Disposition.default
            track.disposition = default if number == 1 else av.stream.Disposition(0)
        for track, gain in zip(tracks, gains, strict=True):
            array = (gain * samples).astype("f4")
            frame = av.AudioFrame.from_ndarray(array, format="flt", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, 0
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return name


@pytest.mark.parametrize("several", [False, True])
def test_an_audio_track_is_chosen(here, several):
    write_tracks("a.mka", [1.0, 0.25, 0.5])
    level, remarks = {}, {}
    for track in (None, 0, 1, 2):
        chosen = () if track is None else ("--audio-track", track)
        out = f"out{track}" if several else f"{track}.wav"
        inputs = ["a.mka", write("b.wav")] if several else ["a.mka"]
        if several and track not in (None, 0):
            continue  # of a file with one track there is number 0 only
        result = enhance(*inputs, "-o", f"{out}/" if several else out, *chosen)
        assert result.exit_code == 0, result.stderr
        path = f"{out}/a.wav" if several else out
        level[track], remarks[track] = soundfile.read(path)[0].std(), result.stderr
    assert "took number 1, flagged as the default" in " ".join(remarks[None].split())
    assert "took number" not in remarks[0]
    assert level[0] > 3 * level[None]
    if not several:
        assert level[1] == level[None] < level[2] < level[0]
        text = refused(enhance("a.mka", "-o", "d.wav", "--audio-track", 3))
        assert "expected audio track 3 (from 0) in 'a.mka', found 3" in text


def test_another_audio_track_is_another_job(here):
    write_tracks("a.mka", [1.0, 0.25])
    assert "1 enhanced" in enhance("a.mka", "-o", "out/", "--audio-track", 0).stdout
    assert "finished before" in enhance("a.mka", "-o", "out/", "--audio-track", 0).stdout
    assert "1 enhanced" in enhance("a.mka", "-o", "out/", "--audio-track", 1).stdout


# --- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command):
    result = run_cli(command, "--help")
    assert result.exit_code == 0
    # Once in the usage, and in an example, which `doctor` does without.
    assert result.stdout.count(f"avse-ppl {command} ") >= (1 if command == "doctor" else 2)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\b" not in result.stdout and "[bold]" not in result.stdout


def test_help_lists_every_command():
    result = run_cli("--help")
    for command in COMMANDS:
        assert f"│ {command} " in result.stdout
    assert run_cli("-h").stdout == result.stdout


def test_version():
    import avse_ppl

    assert run_cli("--version").stdout.strip() == avse_ppl.__version__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("enhanc",), "No such command 'enhanc'"),
        (("enhance", "noisy.wav"), "Missing option '--output'"),
        (
            ("enhance", "noisy.wav", "-o", "e.wav", "--device", "gpu"),
            "Invalid value for '--device'",
        ),
        (("enhance", "noisy.wav", "-o", "e.wav", "--draws", "0"), "Invalid value for '--draws'"),
        (("enhance", "noisy.wav", "-o", "e.wav", "--sed", "0"), "No such option: --sed"),
        (("train", "gan", "--speech", "grid=x", "-o", "y"), "is not one of 'vae', 'rvae'"),
    ],
)
def test_what_does_not_parse(here, arguments, message):
    result = run_cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert sorted(os.listdir()) == ["cli_noises.py", "noisy.wav"]


# --- enhance -------------------------------------------------------------------------------------


def test_enhance_one(here):
    result = enhance("noisy.wav", "-o", "e.wav", "--posterior", "p.nc")
    assert (result.exit_code, result.stderr) == (0, "modules may print\n")
    assert result.stdout.startswith("e.wav: 0.20 s at 16000 Hz, real-time factor ")
    assert result.stdout.endswith("posterior exact, written to p.nc\n")
    samples, _ = soundfile.read("e.wav", dtype="float32")
    np.testing.assert_allclose(Posterior.load("p.nc").enhance(), samples, atol=1e-6)


def test_enhance_json(here):
    result = enhance("noisy.wav", "-o", "e.wav", "--posterior", "p.nc", "--seed", 3, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    (entry,) = report["files"]
    assert (entry["input"], entry["output"], entry["status"]) == ("noisy.wav", "e.wav", "enhanced")
    assert (entry["kind"], entry["posterior"], entry["sample_rate_hz"]) == (
        "exact",
        "p.nc",
        RATE_HZ,
    )
    assert entry["cost"]["wall_s"] > 0
    assert (entry["warnings"], report["failed"], report["settings"]["seed"]) == ([], 0, 3)


def test_the_seed_counts(here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert enhance("noisy.wav", "-o", "e.wav", "--posterior", f"{name}.nc", "--seed", seed)
    draws = {name: Posterior.load(f"{name}.nc").draws() for name in "abc"}
    np.testing.assert_array_equal(draws["a"], draws["b"])
    assert not np.allclose(draws["a"], draws["c"])


def test_enhance_a_folder_and_again(here):
    (here / "in").mkdir()
    write("in/a.wav", rate_hz=8000)
    write("in/b.flac", seed=1)
    first = enhance("in", "-o", "out")
    assert (first.exit_code, first.stdout) == (0, "out: 2 enhanced\n")
    assert "warning: in/a.wav: resampled from 8000 Hz to 16000 Hz\n" in first.stderr
    second = enhance("in", "-o", "out")
    assert second.exit_code == 0 and "warning" not in second.stderr
    assert second.stdout == (
        "out: 0 enhanced, 2 finished before and left as they are (--force redoes them)\n"
    )
    report = json.loads(enhance("in", "-o", "out", "--json").stdout)
    assert [entry["status"] for entry in report["files"]] == ["kept", "kept"]
    resampled, narrow = report["files"][0]["warnings"]
    assert resampled == "resampled from 8000 Hz to 16000 Hz"
    assert narrow.startswith("the recording holds nothing above 3.8 kHz")
    assert enhance("in", "-o", "out", "--force").stdout == "out: 2 enhanced\n"


def test_failures_are_reported_at_the_end(here):
    (here / "in").mkdir()
    write("in/good.wav")
    for name in ("bad.wav", "worse.wav"):
        write(f"in/{name}", 0.01)
    (here / "in" / "text.wav").write_text("this is no audio")
    result = enhance("in", "-o", "out", "--json")
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert any(line.startswith("error: in/bad.wav and 1 more: expected a rec") for line in errors)
    assert any("in 'in/text.wav', found neither" in line for line in errors)
    report = json.loads(result.stdout)
    by_status = {entry["input"]: entry["status"] for entry in report["files"]}
    assert by_status.pop("in/good.wav") == "enhanced"
    assert set(by_status.values()) == {"failed"}
    failed = next(entry for entry in report["files"] if entry["input"] == "in/bad.wav")
    assert failed["output"] is None and "found 160" in failed["error"]
    assert report["failed"] == 3
    assert enhance("in", "-o", "out").stdout.startswith("out: 0 enhanced, 1 finished before")
    assert sorted(os.listdir("out")) == ["enhance.jsonl", "good.wav"]


def test_interruption_keeps_what_is_finished(here, monkeypatch):
    write("other.wav", 0.3)

    def interrupted(self, observations):
        raise KeyboardInterrupt

    monkeypatch.setattr(Enhancer, "enhance", interrupted)
    result = enhance("noisy.wav", "other.wav", "-o", "out")
    assert result.exit_code == 130
    assert result.stderr.endswith(
        "interrupted: finished 0 of 2 recordings; the same command goes on from there\n"
    )
    result = enhance("noisy.wav", "-o", "e.wav")
    assert result.exit_code == 130
    assert result.stderr.endswith("interrupted: finished 0 of 1 recording\n")
    assert not (here / "out").exists() and not (here / "e.wav").exists()


REFUSALS = {
    "missing": (("lost.wav", "-o", "e.wav"), "expected a recording at 'lost.wav', found nothing"),
    "empty": (("empty.wav", "-o", "e.wav"), "'empty.wav', found it empty"),
    "not audio": (("text.wav", "-o", "e.wav"), "expected audio or video in 'text.wav'"),
    "no samples": (("hush.wav", "-o", "e.wav"), "the recording is empty: it holds 0 samples"),
    "too short": (("short.wav", "-o", "e.wav"), "at least 1024 samples"),
    "not finite": (("nan.wav", "-o", "e.wav"), "NaN"),
    "no audio in folder": (("hollow", "-o", "out"), "no recording in 'hollow'"),
    "ending": (("noisy.wav", "-o", "e.mp3"), "expected a name ending in .wav, .flac, .ogg"),
    "no folder": (("noisy.wav", "-o", "no/e.wav"), "make the folder 'no' first"),
    "unwritable": (("noisy.wav", "-o", "text.wav/e.wav"), "cannot write 'text.wav/e.wav'"),
    "unwritable posterior": (
        ("noisy.wav", "-o", "e.wav", "--posterior", "no/p.nc"),
        "make the folder 'no' first",
    ),
    "unwritable folder": (
        ("noisy.wav", "hush.wav", "-o", "text.wav/x"),
        "but 'text.wav' is a file",
    ),
    "itself": (("noisy.wav", "-o", "./noisy.wav"), "would overwrite an input"),
    "two to one": (("noisy.wav", "hollow/../noisy.wav", "-o", "out"), "would both go to"),
    "two to a file": (("noisy.wav", "hush.wav", "-o", "e.wav"), "'e.wav' names a file"),
    "foreign": (("noisy.wav", "-o", "theirs"), "not written by this command"),
    "video": (
        ("noisy.wav", "-o", "e.wav", "--video", "face.mp4"),
        "expected a video at 'face.mp4', found no file there",
    ),
    "speech": (("noisy.wav", "-o", "e.wav", "--speech", "gausian"), "did you mean 'gaussian'?"),
    "speech folder": (("noisy.wav", "-o", "e.wav", "--speech", "hollow"), "hollow"),
    "noise": (("noisy.wav", "-o", "e.wav", "--noise", "nmv"), "did you mean 'nmf'?"),
    "inference": (("noisy.wav", "-o", "e.wav", "--inference", "svy"), "did you mean 'svi'?"),
    "module": (("noisy.wav", "-o", "e.wav", "--noise", "cli_nois:steady"), "no module 'cli_nois'"),
    "function": (
        ("noisy.wav", "-o", "e.wav", "--noise", "cli_noises:stedy"),
        "has no function 'stedy'; did you mean 'steady'?",
    ),
    "wrong return": (
        ("noisy.wav", "-o", "e.wav", "--noise", "cli_noises:wrong_kind"),
        "noise model 'wrong_kind' returned float; expected ComplexNormal",
    ),
}


@pytest.fixture
def bad(here):
    soundfile.write("hush.wav", np.zeros(0), RATE_HZ)
    soundfile.write("nan.wav", np.full(4000, np.nan, "f4"), RATE_HZ, subtype="FLOAT")
    write("short.wav", 0.01)
    (here / "empty.wav").touch()
    (here / "text.wav").write_text("this is no audio")
    (here / "hollow").mkdir()
    (here / "theirs").mkdir()
    write("theirs/noisy.wav")
    return here


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_line_and_leaves_nothing(bad, case):
    arguments, message = REFUSALS[case]
    before = {path: path.stat().st_mtime_ns for path in bad.rglob("*") if path.suffix != ".pyc"}
    result = enhance(*arguments)
    assert message in refused(result)
    after = {path: path.stat().st_mtime_ns for path in bad.rglob("*") if path.suffix != ".pyc"}
    assert {p for p in after if p.name != "__pycache__"} == set(before)
    assert all(after[path] == time for path, time in before.items() if path.is_file())


def test_cuda_that_is_absent(here, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = enhance("noisy.wav", "-o", "e.wav", "--device", "cuda")
    assert "torch finds no CUDA device here" in refused(result)
    assert not (here / "e.wav").exists()


def test_silence_is_returned_with_a_warning(here):
    soundfile.write("hush.wav", np.zeros(4000), RATE_HZ)
    result = enhance("hush.wav", "-o", "e.wav", "--posterior", "p.nc")
    assert result.exit_code == 0
    assert "warning: the recording is silent: all samples are zero\n" in result.stderr
    assert not np.any(soundfile.read("e.wav")[0]) and not (here / "p.nc").exists()


# --- long runs -----------------------------------------------------------------------------------

SVI = ("--speech", "gaussian", "--noise", "stationary", "--inference", "svi", "--draws", 2)


def test_a_time_limit_ends_early_with_what_there_is(here):
    arguments = ("enhance", "noisy.wav", "-o", "out.wav", *SVI, "--time-limit", "1e-6", "--json")
    result = run_cli(*arguments)
    assert result.exit_code == 0
    assert "warning: the time limit of 1e-06 s was reached after 1 of 150 steps\n" in result.stderr
    [report] = json.loads(result.stdout)["files"]
    assert report["kind"] == "variational, tempered 0.25, ended early"
    assert (here / "out.wav").exists()


def test_a_time_limit_before_there_is_anything_is_one_error(here):
    arguments = ("enhance", "noisy.wav", "-o", "out.wav", *SVI[:4], "--inference", "nuts")
    result = run_cli(*arguments, "--time-limit", "1e-6")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the time limit of 1e-06 s was reached")
    assert "nuts has nothing usable yet" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (here / "out.wav").exists()


@pytest.mark.parametrize("limit", ["0", "-3", "nan"])
def test_a_time_limit_that_is_no_time(here, limit):
    result = run_cli("enhance", "noisy.wav", "-o", "out.wav", *SVI, f"--time-limit={limit}")
    assert result.exit_code == 2
    assert "--time-limit takes a positive number of seconds" in result.stderr


def test_a_long_run_says_so_at_once(here, monkeypatch):
    from avse_ppl.utils import run_time

    monkeypatch.setattr(run_time, "LONG_RUN_S", 0.0)
    monkeypatch.setattr(run_time, "_FIRST_LOOK_S", 0.0)
    result = run_cli("enhance", "noisy.wav", "-o", "out.wav", *SVI)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: svi takes about ")
    assert "--time-limit" in result.stderr
    assert "Faster: fewer steps" in result.stderr
    assert result.stderr.count("takes about") == 1


def test_steps_are_shown_with_the_time_left(monkeypatch):
    import io

    from rich.console import Console

    shown = io.StringIO()
    monkeypatch.setattr(console, "ERR", Console(file=shown, force_terminal=True, width=120))
    with console.make_progress_bar() as progress:
        show_step = console.add_steps(progress)
        for step in (1, 2, 1):  # the last of another batch
            show_step(step, 4)
    assert progress.tasks[0].completed == 1
    assert progress.tasks[0].total == 4
    assert "inference" in shown.getvalue()
    assert "left" in shown.getvalue()


# --- how commands speak --------------------------------------------------------------------------


def outcome_of(action, capsys):
    try:
        with console.guard_errors() as remarks:
            action()
    except typer.Exit as leaving:
        return leaving.exit_code, capsys.readouterr().err, remarks
    return 0, capsys.readouterr().err, remarks


def raising(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("expected\n  this, [found] that"), "expected this, [found] that"),
        (TypeError("wrong kind"), "wrong kind"),
        (OSError("plain"), "plain"),
        (OSError(28, "No space left on device", "out.wav"), "out.wav: No space left on device"),
        (OSError(5, "Input/output error"), "file: Input/output error"),
        (ImportError("no such part"), "no such part"),
        (MemoryError(), "MemoryError: no reason given"),
        (type("OutOfMemoryError", (RuntimeError,), {})("2 GiB"), "OutOfMemoryError: 2 GiB"),
    ],
)
def test_expected_errors_are_one_line(error, line, capsys):
    assert outcome_of(raising(error), capsys)[:2] == (2, f"error: {line}\n")


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyError("k"), BrokenPipeError()])
def test_defects_of_ours_are_not_hidden(error, capsys):
    with pytest.raises(type(error)):
        outcome_of(raising(error), capsys)


def test_a_traceback_can_be_asked_for(here, monkeypatch, capsys):
    monkeypatch.setenv("AVSE_PPL_DEBUG", "1")
    with pytest.raises(ValueError, match="expected"):
        outcome_of(raising(ValueError("expected")), capsys)
    assert isinstance(enhance("lost.wav", "-o", "e.wav").exception, FileNotFoundError)


def test_warnings_are_one_line_each_and_once(capsys):
    def action():
        for text in ("first\nof [two]", "second", "first\nof [two]"):
            warnings.warn(text, UserWarning, stacklevel=1)
        warnings.warn("not for users", DeprecationWarning, stacklevel=1)
        warnings.warn("nor this", RuntimeWarning, stacklevel=1)

    code, stderr, remarks = outcome_of(action, capsys)
    assert (code, stderr) == (0, "warning: first of [two]\nwarning: second\n")
    assert len(remarks) == 2


def test_long_lines_are_not_broken(capsys):
    text = "word " * 100 + "end"
    assert outcome_of(raising(ValueError(text)), capsys)[1] == f"error: {text}\n"
    console.print_line(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_json_holds_only_what_json_has(capsys, tmp_path):
    value = {"a": float("inf"), "b": [float("nan"), 1, True, None], "c": tmp_path, 4: (1.5, "x")}
    console.print_json(value)
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": [None, 1, True, None], "c": str(tmp_path), "4": [1.5, "x"]}


# --- as a process --------------------------------------------------------------------------------


def process(*arguments, cwd):
    from pathlib import Path

    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-m", "avse_ppl", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200"}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip


def test_it_runs_as_a_module_and_finds_noise_models_beside_it(here):
    options = ["--speech", "gaussian", "--noise", "cli_noises:steady", "--inference", "exact"]
    done = process("enhance", "noisy.wav", "-o", "e.wav", *options, "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"][0]["output"] == "e.wav"
    assert done.stderr == "modules may print\n"


def test_an_error_of_a_process_has_no_traceback(here):
    done = process("enhance", "lost.wav", "-o", "e.wav", "--speech", "gaussian", cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: expected a recording at 'lost.wav', found nothing there\n"


# --- manifests -----------------------------------------------------------------------------------


def test_manifest(here):
    write("b.wav", seed=1)
    (here / "wav.scp").write_text("u1 noisy.wav\nu2 none.wav\nu3 b.wav\nu4 gone.wav\n")
    result = enhance("--manifest", "wav.scp", "-o", "out")
    assert result.exit_code == 2
    assert result.stdout == "out: 2 enhanced, 2 failed, listed in out/wav.scp\n"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: 2 of the 4 recordings of 'wav.scp' are missing, the rest is enhanced: "
        "'none.wav', 'gone.wav'"
    ]
    assert (here / "out" / "wav.scp").read_text() == "u1 u1.wav\nu3 u3.wav\n"
    (here / "wav.scp").write_text("u1 noisy.wav\nu2 none.wav\n")
    errors = enhance("--manifest", "wav.scp", "-o", "out").stderr
    assert "error: 1 of the 2 recordings of 'wav.scp' is missing, the rest is enhanced: " in errors
    (here / "wav.scp").write_text("u1 noisy.wav\nu3 b.wav\n")
    result = enhance("--manifest", "wav.scp", "-o", "out", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["failed"], report["manifest"]) == (0, 0, "out/wav.scp")
    assert [entry["status"] for entry in report["files"]] == ["kept", "kept"]


def test_manifest_and_recordings_do_not_go_together(here):
    (here / "wav.scp").write_text("u1 noisy.wav\n")
    text = refused(enhance("noisy.wav", "--manifest", "wav.scp", "-o", "out"))
    assert text == "--manifest lists the recordings, and NOISY does, too; give one of them"
    assert "cannot go with --stream" in refused(enhance("--stream", "--manifest", "wav.scp"))
    assert "line 1: 'cat x |' is a command" in refused_manifest(here, "u1 cat x |")


def refused_manifest(here, text):
    (here / "wav.scp").write_text(text)
    return refused(enhance("--manifest", "wav.scp", "-o", "out"))


def test_log_json(here):
    (here / "broken.wav").write_bytes(b"no sound")
    result = enhance("noisy.wav", "broken.wav", "-o", "out/", "--log-json")
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert {(line["input"], line["status"]) for line in lines} == {
        ("noisy.wav", "enhanced"), ("broken.wav", "failed"),
    }  # fmt: skip
    assert [("error" in line, line["output"]) for line in lines if line["status"] == "failed"] == [
        (True, None)
    ]
    assert result.exit_code == 2 and "1 enhanced, 1 failed" in result.stdout
