"""Views of a file, and files that C code may call."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from avse_ppl.signal.file_view import FileView, GuardedFile

DATA = bytes(range(200))


def test_a_view_is_the_span_with_its_patches():
    patches = {0: b"ab", 50: b"cde", 98: b"fghi"}
    view = FileView(io.BytesIO(DATA), 20, 120, patches)
    expected = bytearray(DATA[20:120])
    expected[0:2], expected[50:53], expected[98:100] = b"ab", b"cde", b"fg"
    assert view.read() == expected
    rng = np.random.default_rng(0)
    for start, length in rng.integers(0, 110, (200, 2)).tolist():
        assert view.seek(start) == view.tell() == start
        assert view.read(length) == expected[start : start + length]
        assert view.tell() == max(start, min(start + length, 100))
    assert view.seek(-10, os.SEEK_END) == 90
    assert view.seek(5, os.SEEK_CUR) == 95
    with pytest.raises(ValueError, match="position of 0 or more"):
        view.seek(-101, os.SEEK_END)


def test_a_guarded_file_ends_at_the_first_error():
    class Broken(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() >= 100:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    guarded = GuardedFile(Broken(DATA))
    buffer = bytearray(50)
    assert [guarded.readinto(memoryview(buffer)) for _ in range(4)] == [50, 50, 0, 0]
    assert isinstance(guarded.error, OSError)
    assert guarded.error.errno == 5


@pytest.mark.parametrize("offset", [-1, -(2**62), 2**63])
def test_a_guarded_file_does_not_move_to_nowhere(offset):
    guarded = GuardedFile(io.BytesIO(DATA))
    guarded.seek(7)
    assert guarded.seek(offset) == guarded.tell() == 7
    assert guarded.error is None


def test_a_guarded_file_is_not_read_for_ever():
    guarded = GuardedFile(io.BytesIO(DATA))
    buffer = bytearray(1)
    n_calls = 0
    while guarded.seek(0) == 0 and guarded.readinto(memoryview(buffer)):
        n_calls += 2
    assert isinstance(guarded.error, ValueError)
    assert len(DATA) < n_calls < 200_000
