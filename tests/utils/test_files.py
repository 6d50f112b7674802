"""Output files: checked first, written atomically."""

import os
import subprocess
import tempfile
import warnings

import pytest

from avse_ppl.signal.audio import SAVE_SUBTYPES
from avse_ppl.utils import files
from avse_ppl.utils.files import atomic_path, check_writable, lock_folder, read_json


def test_atomic_path_shows_nothing_before_the_end(tmp_path):
    place = tmp_path / "a.txt"
    place.write_text("old")
    with atomic_path(place) as temporary:
        temporary.write_text("new")
        assert place.read_text() == "old" and temporary.parent == tmp_path
    assert place.read_text() == "new" and list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_atomic_path_leaves_nothing_behind_on_failure(tmp_path, error):
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(type(error)), atomic_path(place) as temporary:
        temporary.write_text("half")
        raise error
    assert place.read_text() == "old" and list(tmp_path.iterdir()) == [place]


def test_atomic_paths_nest_all_or_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match="second"),
        atomic_path(tmp_path / "a") as first,
        atomic_path(tmp_path / "b") as second,
    ):
        first.write_text("a")
        second.write_text("b")
        raise ValueError("second")
    assert not list(tmp_path.iterdir())


def test_check_writable_creates_nothing(tmp_path):
    kept = tmp_path / "a.wav"
    kept.write_bytes(b"kept")
    assert check_writable(kept) == kept
    assert check_writable(str(tmp_path / "new.nc")) == tmp_path / "new.nc"
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    assert kept.read_bytes() == b"kept"


def test_check_writable_checks_the_ending(tmp_path):
    with pytest.raises(ValueError, match=r"ending in \.wav, \.flac, \.ogg, found '.*\.xyz'"):
        check_writable(tmp_path / "a.xyz", suffixes=SAVE_SUBTYPES)
    check_writable(tmp_path / "a.WAV", suffixes=SAVE_SUBTYPES)


def test_check_writable_refuses_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="it is a folder; add a file name"):
        check_writable(tmp_path)


def test_check_writable_refuses_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make the folder '.*none' first"):
        check_writable(tmp_path / "none" / "a.wav")


def test_check_writable_refuses_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(**kwargs):
        assert kwargs["dir"] == tmp_path
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=r"refuses new files \(Read-only file system\)"):
        check_writable(tmp_path / "a.wav")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_in_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="refuses new files"):
        check_writable(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": 1', "delimiter"),
    ],
)
def test_what_is_no_json_is_refused_by_name(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"a\.json is not a manifest, as it is not JSON: .*{said}"
    ):
        read_json(path, "manifest")
    with pytest.raises(FileNotFoundError, match=r"no manifest at .*b\.json"):
        read_json(tmp_path / "b.json", "manifest")


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        host, process, number = temporary.name.split(".")[-2].split("-")
    assert process == str(os.getpid())
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".b.tar.gz.{host}-{dead.pid}-0.part"
    others = [
        tmp_path / f".b.txt.{host}-{os.getppid()}-{number}.part",  # of one that lives
        tmp_path / f".b.txt.00000000-{dead.pid}-0.part",  # of another machine
        tmp_path / "mine.part",
    ]
    for path in (left, *others):
        path.write_text("half")
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("newer")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.txt", *others])


def test_a_folder_is_locked_for_one_and_unlocked_by_its_end(tmp_path):
    folder = tmp_path / "new" / "out"
    with lock_folder(folder):
        with pytest.raises(BlockingIOError, match=r"another run is writing into '.*out'; wait"):
            lock_folder(folder).__enter__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forks beside other threads: the child ends at once
            child = os.fork()
        if child == 0:  # a worker that outlives its parent keeps nobody out
            os._exit(0 if not files._LOCKS else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert folder.is_dir()
    assert not (tmp_path / "new").exists()  # nothing came of it
    with lock_folder(folder):
        (folder / "a.txt").write_text("result")
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
