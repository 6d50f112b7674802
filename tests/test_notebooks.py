"""Teaching notebooks: the pairs are in step, and what is wrong with a pair is found.

That they run is checked by ``make check-notebooks``.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

from tests.helpers import ROOT

sys.path.append(str(ROOT / "scripts"))

import notebooks

PAIRS = notebooks.list_sources([])


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A copy of the first pair, to be spoilt; its ``.py``."""
    for suffix in (".py", ".ipynb"):
        shutil.copy(PAIRS[0].with_suffix(suffix), tmp_path)
    return tmp_path / PAIRS[0].name


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_pairs_are_in_step(path: Path) -> None:
    assert notebooks.check_pair(path) == []


def test_each_is_listed_in_the_documentation() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text()
    assert [path.name for path in PAIRS if path.with_suffix(".ipynb").name not in page] == []


def test_numbers_choose() -> None:
    assert notebooks.list_sources([PAIRS[0].name[:2]]) == PAIRS[:1]
    with pytest.raises(ValueError, match=r"expected the beginning of one of 01_.*found '99'"):
        notebooks.list_sources(["99"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("import avse_ppl\n", "import avse_ppl as library\n", "differ in cells"),
        ("# %% [markdown]\n", "# %%\nprint()\n\n# %% [markdown]\n", "differ in cells"),
        ("# ---\n", "# ----\n", "header"),
        ("# %pip", "# pip", "does not install"),
    ],
)
def test_another_text_is_found(pair: Path, old: str, new: str, message: str) -> None:
    text = pair.read_text()
    assert old in text
    pair.write_text(text.replace(old, new, 1))
    assert message in " ".join(notebooks.check_pair(pair))


def test_a_cell_more_is_found(pair: Path) -> None:
    pair.write_text(pair.read_text() + "\n# %%\nprint()\n")
    assert "in how many cells" in " ".join(notebooks.check_pair(pair))


def test_a_missing_and_a_large_notebook_are_found(
    pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebooks, "MOST_BYTES", 1000)
    assert "more than 1000" in " ".join(notebooks.check_pair(pair))
    pair.with_suffix(".ipynb").unlink()
    assert "has no .ipynb" in " ".join(notebooks.check_pair(pair))


def run_cell(*outputs: dict, count: int | None = 1):
    """A notebook of one cell with these outputs, and a picture."""
    picture = nbformat.v4.new_output("display_data", {"image/png": "/home/not/text"})
    cell = nbformat.v4.new_code_cell("1", execution_count=count, outputs=[*outputs, picture])
    return nbformat.v4.new_notebook(cells=[cell])


def test_wrong_outputs_are_found() -> None:
    new_output = nbformat.v4.new_output
    sound = new_output("display_data", {"text/html": "data:audio/mpeg;base64,AA/tmp/AAAA"})
    assert notebooks.check_outputs(run_cell(sound)) == []
    assert notebooks.check_outputs(run_cell(count=None)) == ["its cells were not executed in turn"]
    assert notebooks.check_outputs(run_cell(count=2)) == ["its cells were not executed in turn"]
    failed = new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert notebooks.check_outputs(run_cell(failed)) == ["a cell failed: ValueError: no"]
    for output in (
        new_output("stream", text="saved to /home/me/x.wav"),
        new_output("execute_result", {"text/plain": "'/home/me/x.wav'"}),
    ):
        assert notebooks.check_outputs(run_cell(output)) == ["an output names /home/me"]
    bare = nbformat.v4.new_notebook(cells=[])
    assert notebooks.check_outputs(bare) == ["it shows no picture"]


def test_pictures_are_made_small_and_stay_the_same_picture() -> None:
    import numpy as np
    from PIL import Image

    ramp = np.linspace(0, 255, 300 * 200 * 3).reshape(200, 300, 3).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, ramp.shape)
    picture = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    shrunk = notebooks.shrink_png(encoded)
    assert len(shrunk) < 0.5 * len(encoded)
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(shrunk))).convert("RGB"))
    assert np.abs(again.astype(float) - picture).mean() < 10
    assert len(notebooks.shrink_png(shrunk)) <= len(shrunk)


def test_each_cell_runs_and_a_failing_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = "\n# %%\nimport os\n\nos.environ['AVSE_PPL_REDUCED']\n"
    (tmp_path / "01_a.py").write_text(notebooks.HEADER + body)
    (tmp_path / "02_b.py").write_text(notebooks.HEADER + "\n# %%\n1 / 0\n")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    for arguments, code, said in (
        (["01", "--reduced"], 0, "ok   01_a"),
        (["02", "--reduced"], 1, "ZeroDivisionError"),
        (["01", "--run"], 1, "KeyError"),
    ):
        monkeypatch.setattr(sys, "argv", ["notebooks.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            notebooks.main()
        assert ended.value.code == code
        captured = capsys.readouterr()
        assert said in captured.out + captured.err
    assert not list(tmp_path.glob("*.ipynb"))
