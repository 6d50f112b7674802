"""Rows of a dataset: every form of a recording that ``datasets`` hands out, one after the other."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from avse_ppl import Audio, ComplexNormal, enhance, save_audio
from avse_ppl.pipeline import dataset_rows
from avse_ppl.pipeline.dataset_rows import RowEnhancer, iterate_enhanced
from tests.helpers import RATE_HZ, waves


def steady(frames):
    return ComplexNormal(0.0, 0.5)


QUICK = {"speech": "gaussian", "noise": steady, "inference": "exact", "draws": 8, "device": "cpu",
         "predictor": "none"}  # fmt: skip
WAVE = 0.1 * waves(1, 4000)[0]


class Decoder:
    """What `datasets` 4 has in the column: asked for values, and no mapping."""

    def __getitem__(self, name):
        return {"array": WAVE, "sampling_rate": RATE_HZ}[name]


@pytest.fixture
def recording(tmp_path):
    return save_audio(tmp_path / "utt1.wav", Audio(WAVE, RATE_HZ))


def test_every_form_of_a_recording_is_enhanced_alike(recording):
    expected = enhance(WAVE, sample_rate_hz=RATE_HZ, **QUICK).speech.samples
    forms = [
        {"array": WAVE, "sampling_rate": RATE_HZ, "path": "a/utt1.wav"},
        {"array": WAVE.tolist(), "sampling_rate": RATE_HZ, "path": None},
        {"bytes": recording.read_bytes(), "path": None},
        {"bytes": None, "path": str(recording)},
        str(recording), recording, Audio(WAVE, RATE_HZ), recording.read_bytes(), Decoder(),
    ]  # fmt: skip
    rows = [{"audio": form, "text": "yes"} for form in forms]
    found = list(iterate_enhanced(rows, **QUICK))
    assert [row["id"] for row in found] == [
        "utt1", "1", "2", "utt1", "utt1", "utt1", "6", "7", "8"
    ]  # fmt: skip
    for row in found:
        assert set(row) == {"audio", "id", "kind", "remarks", "text"}
        assert set(row["audio"]) == {"array", "sampling_rate", "path"}
        assert row["audio"]["array"].dtype == np.float32
        assert row["audio"]["sampling_rate"] == RATE_HZ
        np.testing.assert_allclose(row["audio"]["array"], expected, atol=1e-6)
    assert found[0]["audio"]["path"] == "a/utt1.wav" and found[1]["audio"]["path"] is None


def test_the_band_is_that_of_the_posterior():
    silent = np.stack([np.zeros_like(WAVE), WAVE])
    rows = [{"id": 7, "audio": {"array": silent, "sampling_rate": RATE_HZ}}]
    (row,) = iterate_enhanced(rows, band=0.8, **QUICK)
    posterior = enhance(silent, sample_rate_hz=RATE_HZ, **QUICK).posterior
    low, high = posterior.interval(0.8)
    assert row["id"] == "7" and row["audio"]["array"].shape == silent.shape
    np.testing.assert_allclose([row["lower"][1], row["upper"][1]], [low[0], high[0]], atol=1e-6)
    np.testing.assert_allclose(row["sd"][1], posterior.draws().std(axis=0), atol=1e-6)
    assert not row["sd"][0].any() and not row["lower"][0].any() and not row["upper"][0].any()
    assert row["sd"][1].mean() > 0 and row["kind"] == posterior.kind


def test_map_calls_with_a_row_or_with_columns():
    own = RowEnhancer(**QUICK)
    audios = [{"array": wave, "sampling_rate": RATE_HZ} for wave in 0.1 * waves(2, 4000)]
    columns = own({"audio": audios, "text": ["a", "b"]})
    assert columns["text"] == ["a", "b"] and len(columns["audio"]) == 2
    one = own({"audio": audios[1], "text": "b"})
    np.testing.assert_allclose(
        one["audio"]["array"], columns["audio"][1]["array"], atol=1e-6
    )  # fmt: skip
    both = RowEnhancer(output="enhanced", **QUICK)({"audio": audios[1]})
    assert both["audio"] is audios[1]
    np.testing.assert_array_equal(both["enhanced"]["array"], one["audio"]["array"])
    # A fingerprint is that of the settings, before the models are loaded and after.
    assert pickle.dumps(own) == pickle.dumps(RowEnhancer(**QUICK))
    again = pickle.loads(pickle.dumps(own))
    assert again({"audio": audios[1]})["kind"] == one["kind"]


def test_rows_are_read_ahead_by_a_minute_and_no_more(monkeypatch):
    monkeypatch.setattr(dataset_rows, "BATCH_S", 0.5)
    taken = []

    def give():
        for i in range(5):
            taken.append(i)
            yield {"audio": {"array": WAVE, "sampling_rate": RATE_HZ}}

    found = iterate_enhanced(give(), **QUICK)
    next(found)
    assert taken == [0, 1]
    assert [row["id"] for row in found] == ["1", "2", "3", "4"]


def test_a_manifest_is_read_with_its_spans(recording, tmp_path):
    (tmp_path / "m.csv").write_text("audio,id,offset,duration,text\nutt1.wav,a,0.05,0.15,yes\n")
    (row,) = iterate_enhanced(tmp_path / "m.csv", **QUICK)
    assert (row["id"], row["text"], row["audio"]["path"]) == ("a", "yes", str(recording))
    expected = enhance(WAVE[800:3200], sample_rate_hz=RATE_HZ, **QUICK).speech.samples
    np.testing.assert_allclose(row["audio"]["array"], expected, atol=1e-6)


def test_what_cannot_be_enhanced_is_named_or_left_out(recording, tmp_path):
    rows = [
        {"id": "short", "audio": {"array": WAVE[:10], "sampling_rate": RATE_HZ}},
        {"audio": str(tmp_path / "none.wav")},
        {"audio": str(recording)},
    ]
    with pytest.raises(ValueError, match="row 'short': expected a recording of at least 1024"):
        next(iterate_enhanced(rows, **QUICK))
    with pytest.warns(UserWarning, match="is left out") as caught:
        (row,) = iterate_enhanced(rows, skip_failed=True, **QUICK)
    assert row["id"] == "utt1" and len(caught) == 2
    assert f"row '{tmp_path / 'none.wav'}' is left out" in str(caught[1].message)
    for bad, text in (
        ({"text": "yes"}, "a row has no column 'audio', but 'text'"),
        ({"audio": {"samples": WAVE}}, r"expected a recording as .*, found \['samples'\]"),
        ({"audio": 3}, "found int"),
    ):
        with pytest.raises(ValueError, match=text):
            next(iterate_enhanced([bad], **QUICK))
    with pytest.raises(ValueError, match="expected a band between 0 and 1"):
        RowEnhancer(band=90)


def test_a_batch_that_fails_is_done_again_one_by_one():
    own = RowEnhancer(**QUICK)
    true = own.enhancer.enhance

    class Failing:
        scene = own.enhancer.scene

        def enhance(self, observed):
            if any(one.audio.n_samples == 5000 for one in observed):
                raise RuntimeError("no convergence")
            return true(observed)

    own._enhancer = Failing()
    rows = [
        {"audio": {"array": 0.1 * wave, "sampling_rate": RATE_HZ}}
        for wave in (WAVE, waves(1, 5000)[0], WAVE)
    ]
    with pytest.warns(UserWarning, match="row 1 is left out: no convergence"):
        found = list(iterate_enhanced(rows, enhancer=own, skip_failed=True))
    assert [row["id"] for row in found] == ["0", "2"]


def test_with_the_package_itself(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"audio": {"array": WAVE, "sampling_rate": RATE_HZ, "path": None}, "text": "a"}]
    made = datasets.Dataset.from_generator(
        lambda: iterate_enhanced(rows, **QUICK), cache_dir=str(tmp_path)
    )
    assert made[0]["id"] == "0" and len(made[0]["audio"]["array"]) == len(WAVE)
    mapped = datasets.Dataset.from_list(rows).map(RowEnhancer(**QUICK))
    np.testing.assert_allclose(mapped[0]["audio"]["array"], made[0]["audio"]["array"], atol=1e-6)
