"""Files that claim to be posteriors: only whole and finite ones are read, and written."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from avse_ppl import Exact, GaussianSpeech, Posterior, Scene, Stft
from tests.helpers import known_noise, waves


@pytest.fixture
def path(tmp_path):
    scene = Scene(GaussianSpeech(stft=Stft(n_fft=64, hop=16), gain_sd_db=0.0), known_noise)
    posterior = Exact(draws=2)(scene, waves(2, 320), seed=0)
    return posterior.save(tmp_path / "p.nc")


def damage(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def put(name, value):
    def change(file):
        file[name][...] = value

    return change


def text(name, value):
    def change(file):
        file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("constant_data/speech_mean_re", np.nan), "speech_mean holds values that are not fin"),
        (put("observed_data/mixture_im", np.inf), "mixture holds values that are not finite"),
        (put("observed_data/mixture_im", 1e30), r"mixture holds values beyond 2e\+16"),
        (put("constant_data/speech_variance", -1.0), "speech_variance is negative"),
        (put("constant_data/n_samples", 640), r"speech_mean has the shape \(2, 33, 21\), expected"),
        (put("constant_data/n_samples", 0), r"recordings of \[0, 0\] samples"),
        (text("stft", '{"n_fft": 128, "hop": 16}'), r"speech_mean has the shape .*\(2, 65, 21\)"),
        (text("stft", "[" * 100_000), "recursion"),
        (text("stft", '{"n_fft": 64, "hop": 16, "sample_rate_hz": {}}'), "the front end"),
        (text("settings", "[1, 2]"), "has no attribute"),
        (text("settings", '{"warnings": [[3], []]}'), "the facts about the fit"),
        (text("settings", '{"k_hat": ["high", 0.2]}'), "the facts about the fit"),
        (text("avse_ppl_format", 7), "avse_ppl_format"),
        (lambda file: file.pop("observed_data"), "observed_data"),
    ],
)
def test_a_damaged_posterior_is_refused_by_name(path, change, said):
    damage(path, change)
    with pytest.raises(ValueError, match=rf"p\.nc is not a posterior saved by this .*{said}"):
        Posterior.load(path)


def test_arrays_that_claim_terabytes_are_refused_before_they_are_read(path):
    def claim(file):
        del file["constant_data/speech_variance"]
        file.create_dataset("constant_data/speech_variance", (2**40, 3), "f4", chunks=(64, 3))

    damage(path, claim)
    with pytest.raises(ValueError, match=r"claim 131941\d+ bytes, which \d+ bytes cannot hold"):
        Posterior.load(path)


def test_a_file_that_is_no_hdf5_leaves_nothing_on_stderr(path, capfd):
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="is not a posterior"):
        Posterior.load(path)
    assert capfd.readouterr().err == ""


def test_texts_that_keep_hdf5_in_a_loop_are_refused(path):
    data = bytearray(path.read_bytes())
    heap = data.find(b"GCOL\x01\0\0\0")
    assert heap > 0
    data[heap + 16 : heap + 32] = bytes(16)  # free space of no size, before the texts
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"p\.nc is not .* texts at byte {heap} are damaged"):
        Posterior.load(path)


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mean", np.nan, "speech_mean holds values that are not finite numbers"),
        ("variance", np.inf, "speech_variance holds values that are not finite numbers"),
        ("variance", -1.0, "speech_variance is negative"),
        ("mixture", 1e30, r"mixture holds values beyond 2e\+16"),
        ("speech", np.nan, "speech holds values that are not finite numbers"),
    ],
)
def test_what_could_not_be_read_is_not_written(path, tmp_path, name, value, said):
    posterior = Posterior.load(path)
    values = getattr(posterior, name).copy()
    np.moveaxis(values, values.ndim - 2 if name == "speech" else 0, 0)[1] = value
    broken = replace(posterior, **{name: values})
    other = tmp_path / "other.nc"
    message = rf"other\.nc': {said} \(recording 1\), .*select"
    with pytest.raises(ValueError, match=message) as caught:
        broken.save(other)
    assert "Nothing was written" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.nc"]
    np.testing.assert_array_equal(getattr(broken, name), values)
    # What the message advises.
    kept = Posterior.load(broken.select(0).save(other))
    np.testing.assert_array_equal(kept.variance, posterior.select(0).variance)


def test_facts_of_a_type_that_is_not_read_are_not_written(path, tmp_path):
    posterior = Posterior.load(path)
    fit = (replace(posterior.fit[0], k_hat="high"), posterior.fit[1])
    with pytest.raises(ValueError, match=r"the facts about the fit .*high"):
        replace(posterior, fit=fit).save(tmp_path / "other.nc")


def test_facts_in_numbers_of_numpy_are_read_again(path):
    posterior = Posterior.load(path)
    fit = tuple(replace(one, k_hat=np.float32(0.5)) for one in posterior.fit)
    replace(posterior, fit=fit, attrs={"share": np.int64(3)}).save(path)
    again = Posterior.load(path)
    assert [one.k_hat for one in again.fit] == [0.5, 0.5]
    assert again.attrs["share"] == 3
