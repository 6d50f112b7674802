"""Media files opened: paths, bytes and pipes."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.media import name_source, open_media
from tests.helpers import RATE_HZ


def encode(file_format="WAV"):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(4000) / 10
    soundfile.write(buffer, noise, RATE_HZ, format=file_format)
    return buffer.getvalue()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3"])
def test_a_pipe_is_read_as_its_bytes_are(tmp_path, file_format):
    data, pipe = encode(file_format), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    audio = load_audio(pipe)
    writer.join()
    np.testing.assert_array_equal(audio.samples, load_audio(data).samples)


def test_names_in_messages(tmp_path):
    assert name_source(tmp_path / "a.wav") == f"'{tmp_path / 'a.wav'}'"
    assert name_source(memoryview(b"")) == "the bytes given"


def test_an_error_of_the_disk_gets_the_name_of_the_file_once(tmp_path):
    path = tmp_path / "it's a.wav'"
    path.write_bytes(encode())
    with pytest.raises(OSError, match="No space") as caught, open_media(path):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    with pytest.raises(OSError, match="other") as caught, open_media(path):
        raise OSError(28, "No space left on device", "other")
    assert caught.value.filename == "other"
    with pytest.raises(OSError, match="in words") as caught, open_media(path):
        raise OSError("in words")
    assert caught.value.filename is None
