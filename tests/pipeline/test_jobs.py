"""Which file each recording goes to, and what is refused before anything is done."""

from __future__ import annotations

import pytest

from avse_ppl.pipeline.jobs import Job, measure_duration, plan_jobs
from tests.helpers import write_recording


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.flac", "c.ogg"):
        write_recording(tmp_path / "in" / name)
    return tmp_path / "in"


def test_one_recording_goes_to_one_file(tmp_path):
    todo = plan_jobs([tmp_path / "a.wav"], tmp_path / "e.flac", tmp_path / "p.nc")
    assert todo.jobs == (Job(tmp_path / "a.wav", tmp_path / "e.flac", tmp_path / "p.nc"),)
    assert todo.folder is None


@pytest.mark.parametrize("how", ["slash", "existing"])
def test_one_recording_may_go_to_a_folder(tmp_path, how):
    out = tmp_path / "out"
    if how == "existing":
        out.mkdir()
    todo = plan_jobs([tmp_path / "a.wav"], f"{out}/" if how == "slash" else out)
    assert todo.jobs == (Job(tmp_path / "a.wav", out / "a.wav"),)
    assert todo.folder == out


def test_a_folder_stands_for_its_recordings_and_nothing_else(folder, tmp_path):
    (folder / "notes.txt").write_text("no sound")
    (folder / ".hidden.wav").write_bytes(b"")
    write_recording(folder / "deep" / "d.wav")
    todo = plan_jobs(
        [folder, write_recording(tmp_path / "x.wav")], tmp_path / "out", tmp_path / "nc"
    )
    assert [job.output for job in todo.jobs] == [tmp_path / "out" / f"{n}.wav" for n in "abcx"]
    assert [job.posterior for job in todo.jobs] == [tmp_path / "nc" / f"{n}.nc" for n in "abcx"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "nc").exists()


def test_nothing_given():
    with pytest.raises(ValueError, match="expected one recording or more, found none"):
        plan_jobs([], "out")


def test_a_folder_without_recordings(tmp_path):
    write_recording(tmp_path / "in" / "deep" / "a.wav")
    with pytest.raises(ValueError, match=r"no recording in .*folders in it are not searched"):
        plan_jobs([tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize("other", ["in/a.mp3", "other/a.wav", "in/a.wav"])
def test_two_recordings_of_one_name_collide(folder, tmp_path, other):
    with pytest.raises(ValueError, match=r"a\.wav' and .* would both go to '.*out/a\.wav'"):
        plan_jobs([folder / "a.wav", tmp_path / other], tmp_path / "out")


@pytest.mark.parametrize(("output", "posterior"), [("e.wav", None), ("out", "p.nc")])
def test_several_recordings_do_not_fit_into_a_file(folder, tmp_path, output, posterior):
    with pytest.raises(ValueError, match=r"several recordings go to a folder, but .* names a file"):
        plan_jobs([folder], tmp_path / output, posterior and tmp_path / posterior)


def test_an_output_folder_that_is_a_file(folder, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(
        NotADirectoryError, match=r"expected '.*out' to be a folder, but '.*out' is"
    ):
        plan_jobs([folder], tmp_path / "out")
    with pytest.raises(NotADirectoryError, match=r"expected '.*deeper' to be a folder"):
        plan_jobs([folder], tmp_path / "out" / "deeper")


def test_an_output_folder_that_refuses_files(folder, tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"refuses new files \(Read-only file system\)"):
        plan_jobs([folder], tmp_path / "out")


def test_an_output_that_is_an_input(folder, tmp_path):
    with pytest.raises(ValueError, match="would overwrite an input"):
        plan_jobs([folder / "a.wav"], folder / ".." / "in" / "a.wav")
    with pytest.raises(ValueError, match="would overwrite an input"):
        plan_jobs([folder], folder)


def test_two_outputs_of_one_name(tmp_path):
    (tmp_path / "same.wav").symlink_to(tmp_path / "p.nc")
    with pytest.raises(ValueError, match="two outputs have the name"):
        plan_jobs([tmp_path / "a.wav"], tmp_path / "same.wav", tmp_path / "p.nc")


@pytest.mark.parametrize(("output", "posterior"), [("e.mp3", None), ("e.wav", "p.txt")])
def test_endings_that_cannot_be_written(tmp_path, output, posterior):
    with pytest.raises(ValueError, match="expected a name ending in"):
        plan_jobs([tmp_path / "a.wav"], tmp_path / output, posterior and tmp_path / posterior)


def test_durations_are_read_without_decoding(tmp_path, shared):
    video = min((shared / "data" / "grid_unseen").glob("*.mkv"))
    assert measure_duration(video) == pytest.approx(3.0, abs=0.1)
    assert measure_duration(write_recording(tmp_path / "a.wav", 0.5, channels=2)) == pytest.approx(
        1.0
    )
    assert measure_duration(tmp_path / "missing.wav") == 0.0
