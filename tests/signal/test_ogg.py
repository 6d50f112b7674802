"""Ogg pages, against what libsndfile wrote; streams whose end is not marked."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.ogg import is_closed, seal_page, split_chain, walk_pages
from tests.helpers import RATE_HZ


def encode(subtype, n_samples=3 * RATE_HZ):
    noise = np.random.default_rng(0).standard_normal(n_samples) / 10
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, RATE_HZ, format="OGG", subtype=subtype)
    return buffer.getvalue()


def unmark_end(data):
    """Take the mark of the end from the last page, with a right checksum."""
    at = data.rindex(b"OggS")
    page = bytearray(data[at:])
    page[5] &= ~4
    return data[:at] + seal_page(page)


def walk(data):
    return list(walk_pages(io.BytesIO(data)))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_pages_follow_each_other_and_have_their_checksums(subtype):
    data = encode(subtype)
    pages = walk(data)
    assert [page.start for page in pages] == [0, *(page.stop for page in pages[:-1])]
    assert pages[-1].stop == len(data)
    assert len(pages) == data.count(b"OggS")
    assert [page.is_first for page in pages] == [True] + [False] * (len(pages) - 1)
    assert [page.is_last for page in pages] == [False] * (len(pages) - 1) + [True]
    for page in pages:
        stored = data[page.start : page.stop]
        assert seal_page(bytearray(stored)) == stored


@pytest.mark.parametrize("junk", [1, 4, 26, 300, 70000, 200_000])
def test_pages_are_found_after_damage(junk):
    data = encode("VORBIS")
    cut = walk(data)[2].start
    found = walk(data[:cut] + b"O" * junk + data[cut:])
    assert len(found) == len(walk(data))
    assert found[2].start == cut + junk


def test_streams_side_by_side_are_one_recording():
    one, other = encode("VORBIS"), encode("OPUS")
    pages = [data[page.start : page.stop] for data in (one, other) for page in walk(data)[:1]]
    side_by_side = b"".join(pages) + one[walk(one)[0].stop :] + other[walk(other)[0].stop :]
    assert len(split_chain(walk(side_by_side))) == 1
    assert len(split_chain(walk(one + other + one))) == 3
    assert is_closed(walk(side_by_side))
    assert not is_closed(walk(side_by_side)[:-1])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_stream_whose_end_is_not_marked_is_read_whole(subtype):
    data = encode(subtype)
    with pytest.warns(UserWarning, match="its end is not marked, as of a call"):
        audio = load_audio(unmark_end(data))
    assert audio.sample_rate_hz == RATE_HZ
    np.testing.assert_array_equal(audio.samples, load_audio(data).samples)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_stream_that_ends_between_pages_is_read_to_there(subtype):
    data = encode(subtype)
    whole = load_audio(data)
    with pytest.warns(UserWarning, match="compare its length with what you expect"):
        audio = load_audio(data[: walk(data)[-1].start])
    assert 0 < audio.n_samples < whole.n_samples
    last = audio.n_samples - 400  # the last block is faded out where the next is missing
    np.testing.assert_allclose(audio.samples[:last], whole.samples[:last], atol=1e-6)


def test_a_stream_whose_last_page_was_cut_is_refused():
    data = unmark_end(encode("OPUS"))
    with pytest.raises(ValueError, match="cut short"):
        load_audio(data[:-1])
