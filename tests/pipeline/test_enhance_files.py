"""Files in, files out: what goes where, what is refused, what is not done twice."""

from __future__ import annotations

import importlib
import json
import os
import warnings

import numpy as np
import pytest
import soundfile

from avse_ppl import ComplexNormal, Posterior, load_audio
from avse_ppl.pipeline.enhance import Enhancer
from avse_ppl.pipeline.enhance_files import RESUME_LOG, enhance_files
from avse_ppl.pipeline.jobs import plan_jobs
from tests.helpers import RATE_HZ


def steady(frames):
    return ComplexNormal(0.0, 0.5)


def steadier(frames):
    return ComplexNormal(0.0, 0.7)


QUICK = {"speech": "gaussian", "noise": steady, "inference": "exact", "draws": 2, "device": "cpu"}


def write(path, seconds=0.2, seed=0, channels=1, rate_hz=RATE_HZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(seconds * rate_hz), channels)
    samples = 0.1 * np.random.default_rng(seed).standard_normal(shape)
    soundfile.write(path, samples, rate_hz)
    return path


def run(todo, **changes):
    return {o.job.output.name: o for o in enhance_files(todo, **{**QUICK, **changes})}


def statuses(outcomes):
    return {name: outcome.status for name, outcome in outcomes.items()}


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("a.wav", "b.flac", "c.ogg")):
        write(tmp_path / "in" / name, 0.2 + 0.1 * i, seed=i)
    return tmp_path / "in"


# --- enhancing -----------------------------------------------------------------------------------


def test_one_recording(tmp_path):
    source = write(tmp_path / "a.wav", channels=2)
    outcomes = run(plan_jobs([source], tmp_path / "e.wav", tmp_path / "p.nc"))
    details = outcomes["e.wav"].details
    assert statuses(outcomes) == {"e.wav": "enhanced"}
    assert details["sample_rate_hz"] == RATE_HZ and details["duration_s"] == pytest.approx(0.2)
    assert set(details["cost"]) >= {"wall_s", "cpu_s", "real_time_factor"}
    assert not details["silent"]
    samples, rate_hz = soundfile.read(tmp_path / "e.wav")
    assert (samples.shape, rate_hz) == ((3200, 2), RATE_HZ)
    posterior = Posterior.load(tmp_path / "p.nc")
    assert posterior.kind == details["kind"]
    np.testing.assert_allclose(posterior.enhance(1), samples[:, 1], atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "e.wav", "p.nc"]


def test_a_single_output_is_made_anew(tmp_path):
    source = write(tmp_path / "a.wav")
    (tmp_path / "e.wav").write_bytes(b"of other origin")
    for _ in range(2):
        assert statuses(run(plan_jobs([source], tmp_path / "e.wav"))) == {"e.wav": "enhanced"}


def test_a_folder_is_the_same_as_its_recordings_one_by_one(folder, tmp_path):
    run(plan_jobs([folder], tmp_path / "out", tmp_path / "nc"))
    for name in "abc":
        assert Posterior.load(tmp_path / "nc" / f"{name}.nc").recordings == 1
    run(plan_jobs([folder / "b.flac"], tmp_path / "e.wav"))
    alone, together = (soundfile.read(p)[0] for p in (tmp_path / "e.wav", tmp_path / "out/b.wav"))
    assert np.std(alone) > 0
    np.testing.assert_allclose(together, alone, atol=1e-4 * np.std(alone))


def test_what_is_finished_is_kept(folder, tmp_path):
    todo = plan_jobs([folder], tmp_path / "out")
    assert set(statuses(run(todo)).values()) == {"enhanced"}
    (tmp_path / "out" / "b.wav").unlink()
    before = (tmp_path / "out" / "a.wav").stat().st_mtime_ns
    outcomes = run(todo)
    assert statuses(outcomes) == {"a.wav": "kept", "b.wav": "enhanced", "c.wav": "kept"}
    assert outcomes["a.wav"].details["cost"]["wall_s"] > 0
    assert (tmp_path / "out" / "a.wav").stat().st_mtime_ns == before
    assert set(statuses(run(todo)).values()) == {"kept"}
    assert set(statuses(run(todo, force=True)).values()) == {"enhanced"}


@pytest.mark.parametrize("change", [{"seed": 1}, {"draws": 3}, {"noise": steadier}])
def test_other_settings_make_it_anew(folder, tmp_path, change):
    todo = plan_jobs([folder / "a.wav"], f"{tmp_path}/out/")
    run(todo)
    assert statuses(run(todo, **change)) == {"a.wav": "enhanced"}
    assert statuses(run(todo, **change)) == {"a.wav": "kept"}


def test_a_noise_function_that_was_edited_makes_it_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    text = (
        "from avse_ppl import ComplexNormal\ndef hum(frames):\n    return ComplexNormal(0.0, {})\n"
    )
    todo = plan_jobs([folder / "a.wav"], f"{tmp_path}/out/")
    for power, expected in ((0.5, "enhanced"), (0.5, "kept"), (0.75, "enhanced")):
        (tmp_path / "edited_noise.py").write_text(text.format(power))
        importlib.invalidate_caches()
        monkeypatch.delitem("sys.modules", "edited_noise", raising=False)
        assert statuses(run(todo, noise="edited_noise:hum")) == {"a.wav": expected}
    monkeypatch.delitem("sys.modules", "edited_noise", raising=False)


def test_an_input_that_changed_makes_it_anew(folder, tmp_path):
    todo = plan_jobs([folder], tmp_path / "out")
    run(todo)
    write(folder / "a.wav", 0.25, seed=9)
    assert statuses(run(todo)) == {"a.wav": "enhanced", "b.wav": "kept", "c.wav": "kept"}


def test_a_posterior_asked_for_later_makes_it_anew(folder, tmp_path):
    source = folder / "a.wav"
    run(plan_jobs([source], f"{tmp_path}/out/"))
    todo = plan_jobs([source], f"{tmp_path}/out/", tmp_path / "nc")
    assert statuses(run(todo)) == {"a.wav": "enhanced"}
    assert statuses(run(todo)) == {"a.wav": "kept"}
    (tmp_path / "nc" / "a.nc").unlink()
    assert statuses(run(todo)) == {"a.wav": "enhanced"}


def test_files_of_other_origin_are_not_overwritten(folder, tmp_path):
    theirs = write(tmp_path / "out" / "a.wav", seed=5)
    write(tmp_path / "out" / "b.wav", seed=6)
    before = theirs.read_bytes()
    todo = plan_jobs([folder], tmp_path / "out")
    with pytest.raises(ValueError, match=r"a\.wav' and 1 more exist but were not written by this"):
        run(todo)
    assert theirs.read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out")) == ["a.wav", "b.wav"]
    assert set(statuses(run(todo, force=True)).values()) == {"enhanced"}


def test_a_ledger_line_cut_short_costs_only_its_own_recording(folder, tmp_path):
    todo = plan_jobs([folder], tmp_path / "out")
    run(todo)
    ledger = tmp_path / "out" / RESUME_LOG
    lines = ledger.read_text().splitlines()
    torn = json.loads(lines[-1])["output"]
    ledger.write_text("\n".join([*lines[:-1], "[1, 2]", '{"output": "x"}', lines[-1][:40]]))
    outcomes = statuses(run(todo))
    assert [name for name, status in outcomes.items() if status == "enhanced"] == [torn]
    assert set(statuses(run(todo)).values()) == {"kept"}


def test_what_was_written_but_not_recorded_is_known_and_made_again(folder, tmp_path):
    todo = plan_jobs([folder], tmp_path / "out", tmp_path / "nc")
    run(todo)
    log = tmp_path / "out" / RESUME_LOG
    lines = log.read_text().splitlines()
    assert json.loads(lines[-2]) == {"begun": ["c.wav"]}
    assert json.loads(lines[-1])["output"] == "c.wav"
    log.write_text("\n".join(lines[:-1]))  # killed before the record, in the middle of a line end
    assert statuses(run(todo)) == {"a.wav": "kept", "b.wav": "kept", "c.wav": "enhanced"}
    # Killed while other settings wrote over it: nothing of the former run counts any more.
    with log.open("a") as file:
        file.write('{"begun": ["a.wav"]}\n')
    assert statuses(run(todo)) == {"a.wav": "enhanced", "b.wav": "kept", "c.wav": "kept"}


def test_two_runs_do_not_write_into_one_folder(folder, tmp_path):
    first = enhance_files(plan_jobs([folder], tmp_path / "out", tmp_path / "nc"), **QUICK)
    next(first)
    for outputs in ((tmp_path / "out",), (tmp_path / "other", tmp_path / "nc")):
        with pytest.raises(BlockingIOError, match="another run is writing into"):
            run(plan_jobs([folder], *outputs))
    assert not (tmp_path / "other").exists()
    assert len(list(first)) == 2
    assert set(statuses(run(plan_jobs([folder], tmp_path / "out"))).values()) == {"kept"}


BAD = {
    "missing.wav": None,
    "empty.wav": b"",
    "text.wav": b"this is no audio",
    "short.wav": 100 / RATE_HZ,
    "nan.wav": "nan",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_recording_does_not_stop_the_others(folder, tmp_path, bad):
    content = BAD[bad]
    if content == "nan":
        soundfile.write(folder / bad, np.full(4000, np.nan, "f4"), RATE_HZ, subtype="FLOAT")
    elif isinstance(content, bytes):
        (folder / bad).write_bytes(content)
    elif content is not None:
        write(folder / bad, content)
    todo = plan_jobs([folder, folder / bad] if content is None else [folder], tmp_path / "out")
    outcomes = run(todo)
    assert statuses(outcomes) == {
        "a.wav": "enhanced", "b.wav": "enhanced", "c.wav": "enhanced", bad: "failed",
    }  # fmt: skip
    assert isinstance(outcomes[bad].error, (ValueError, OSError))
    assert outcomes[bad].details == {}
    assert sorted(os.listdir(tmp_path / "out")) == ["a.wav", "b.wav", "c.wav", RESUME_LOG]
    assert run(todo)[bad].status == "failed"


def test_what_fails_in_a_batch_is_found_by_going_one_by_one(tmp_path, monkeypatch):
    for name, seconds in (("a", 0.38), ("b", 0.39), ("c", 0.4)):
        write(tmp_path / "in" / f"{name}.wav", seconds)
    real, calls = Enhancer.enhance, []

    def fussy(self, observations):
        calls.append(len(observations))
        if any(one.audio.duration_s > 0.395 for one in observations):
            raise RuntimeError("too much for me")
        return real(self, observations)

    monkeypatch.setattr(Enhancer, "enhance", fussy)
    outcomes = run(plan_jobs([tmp_path / "in"], tmp_path / "out"))
    assert statuses(outcomes) == {"a.wav": "enhanced", "b.wav": "enhanced", "c.wav": "failed"}
    assert str(outcomes["c.wav"].error) == "too much for me"
    assert calls == [3, 1, 1, 1]


def test_an_output_that_cannot_be_written_in_the_end(folder, tmp_path):
    todo = plan_jobs([folder], tmp_path / "out")
    (tmp_path / "out" / "b.wav").mkdir(parents=True)  # comes up while the others are made
    outcomes = run(todo, force=True)
    assert statuses(outcomes) == {"a.wav": "enhanced", "b.wav": "failed", "c.wav": "enhanced"}
    assert "is a folder" in str(outcomes["b.wav"].error)


def test_speech_is_kept_where_its_posterior_cannot_be_written(folder, tmp_path, monkeypatch):
    todo = plan_jobs([folder], tmp_path / "out", tmp_path / "posteriors")
    real = Enhancer.enhance

    def spoil(self, observations):
        results = real(self, observations)
        for result, one in zip(results, observations, strict=True):
            if one.audio.duration_s > 0.35:
                result.posterior.variance[:] = np.nan
        return results

    monkeypatch.setattr(Enhancer, "enhance", spoil)
    outcomes = run(todo)
    assert statuses(outcomes) == {"a.wav": "enhanced", "b.wav": "enhanced", "c.wav": "failed"}
    assert "speech_variance holds values that are not finite" in str(outcomes["c.wav"].error)
    assert "the enhanced speech is in" in outcomes["c.wav"].warnings[-1]
    assert load_audio(tmp_path / "out" / "c.wav").peak > 0
    assert sorted(os.listdir(tmp_path / "posteriors")) == ["a.nc", "b.nc"]
    # It is done again, over what was written.
    monkeypatch.undo()
    again = run(todo)
    assert statuses(again) == {"a.wav": "kept", "b.wav": "kept", "c.wav": "enhanced"}


def test_what_was_done_survives_an_interruption(folder, tmp_path, monkeypatch):
    todo = plan_jobs([folder], tmp_path / "out")  # too unlike in length to share a batch
    real, calls = Enhancer.enhance, []

    def interrupted(self, observations):
        calls.append(len(observations))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, observations)

    monkeypatch.setattr(Enhancer, "enhance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(todo)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.wav", RESUME_LOG]
    assert statuses(run(todo)) == {"a.wav": "kept", "b.wav": "enhanced", "c.wav": "enhanced"}
    assert calls == [1, 1, 1, 1]


def test_the_shortest_recordings_come_first(tmp_path):
    for i, seconds in enumerate((0.5, 0.1, 0.3, 0.1)):
        write(tmp_path / "in" / f"{i}.wav", seconds)
    outcomes = run(plan_jobs([tmp_path / "in"], tmp_path / "out"))
    assert list(outcomes) == ["1.wav", "3.wav", "2.wav", "0.wav"]


def test_remarks_are_about_the_recording_they_belong_to(tmp_path):
    write(tmp_path / "in" / "fast.wav", rate_hz=44100)
    write(tmp_path / "in" / "right.wav")
    soundfile.write(tmp_path / "in" / "silent.wav", np.zeros(4000), RATE_HZ)
    outcomes = run(plan_jobs([tmp_path / "in"], tmp_path / "out", tmp_path / "nc"))
    assert outcomes["fast.wav"].warnings == ("resampled from 44100 Hz to 16000 Hz",)
    assert outcomes["right.wav"].warnings == ()
    assert outcomes["silent.wav"].warnings == ("the recording is silent: all samples are zero",)


def test_a_remark_about_a_whole_batch_is_said_of_each(folder, tmp_path, monkeypatch):
    real = Enhancer.enhance

    def remarking(self, observations):
        warnings.warn("fewer draws", UserWarning, stacklevel=1)
        warnings.warn("not for users", DeprecationWarning, stacklevel=1)
        return real(self, observations)

    monkeypatch.setattr(Enhancer, "enhance", remarking)
    outcomes = run(plan_jobs([folder], tmp_path / "out"))
    assert [outcome.warnings for outcome in outcomes.values()] == [("fewer draws",)] * 3


def test_silence_is_returned_and_has_no_posterior(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "silent.wav", np.zeros(4000), RATE_HZ)
    todo = plan_jobs([tmp_path / "in"], tmp_path / "out", tmp_path / "nc")
    details = run(todo)["silent.wav"].details
    assert (details["kind"], details["posterior"], details["silent"]) == (None, None, True)
    assert not np.any(soundfile.read(tmp_path / "out" / "silent.wav")[0])
    assert not (tmp_path / "nc").exists()
    assert statuses(run(todo)) == {"silent.wav": "kept"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speech": "gausian"}, "unknown speech prior 'gausian'.*did you mean 'gaussian'"),
        ({"noise": "stationry"}, "unknown noise model 'stationry'.*did you mean 'stationary'"),
        ({"inference": "exakt"}, "unknown inference method 'exakt'.*did you mean 'exact'"),
        ({"device": "gpu"}, "device must be 'auto', 'cpu' or 'cuda', not 'gpu'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_made(folder, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(plan_jobs([folder], tmp_path / "out"), **change)
    assert not (tmp_path / "out").exists()
