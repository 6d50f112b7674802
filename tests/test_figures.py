"""Figures of the pages are those of the benchmarks, whose results are read back as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # no package: its files are scripts that share modules

import figures
import results
from results import QUALITY, Column, Table

PAGES = figures.list_pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def make_tables() -> dict[str, Table]:
    table = Table(
        [
            Column("prior", "speech prior", "{prior}"),
            Column("quality", "all", QUALITY),
            Column("cost", "CPU s", "{cpu_s:.2f}"),
        ],
        date="2026-01-02",
        machine="one core",
    )
    scores = results.name_scores((9.137, 1.6641, 0.6394))
    table.add_row("tcvae", prior="tcvae (ours)", cpu_s=0.384, **scores)
    table.add_row("input", prior="(input)", **results.name_scores((-3.5, 1.13, float("nan"))))
    speed = Table([Column("factor", "factor", "{median:.1f}")], date="2026-01-02", machine="m")
    speed.add_row("alone", median=0.25)
    return {"toy": table, "toy.speed": speed}


# --- the pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_figures_are_those_of_the_results(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    filled = figures.fill_text(text, results.read_tables())
    assert text == filled, "run `python benchmarks/run.py --write-docs`"


def test_headline_figures_are_marked() -> None:
    priors = ("tcvae", "rvae", "vae", "av-dkf")
    cards = [f"avse_ppl/models/pretrained/{name}/README.md" for name in priors]
    for name in ["README.md", "benchmarks/RESULTS.md", *cards]:
        assert figures.MARKER.search((ROOT / name).read_text(encoding="utf-8")), name


def test_results_name_no_folder_of_the_machine() -> None:
    for path in results.RESULTS.glob("*.json"):
        assert not re.search(r"/(home|tmp|root|work|Users)/", path.read_text(encoding="utf-8"))


# --- filling -------------------------------------------------------------------------------------


def test_markers_are_filled_and_the_rest_is_left() -> None:
    text = """Above.

<!-- table: toy -->
old
<!-- end -->

Its SI-SDR is <!-- figure: toy.tcvae.si_sdr -->8.79<!-- end --> dB, in all
<!-- not run: another comment --> it is
 = <!-- figure: toy.tcvae.quality --><!-- end -->,
at a factor of <!-- figure: toy.speed.alone.median -->1<!-- end -->.
"""
    expected = """Above.

<!-- table: toy -->

| speech prior | all | CPU s |
| --- | --- | --- |
| tcvae (ours) | 9.14 / 1.664 / 0.639 | 0.38 |
| (input) | -3.50 / 1.130 / n/a |  |

Measured on 2026-01-02; one core.

<!-- end -->

Its SI-SDR is <!-- figure: toy.tcvae.si_sdr -->9.14<!-- end --> dB, in all
<!-- not run: another comment --> it is
 = <!-- figure: toy.tcvae.quality -->9.14 / 1.664 / 0.639<!-- end -->,
at a factor of <!-- figure: toy.speed.alone.median -->0.2<!-- end -->.
"""
    filled = figures.fill_text(text, make_tables())
    assert filled == expected
    assert figures.fill_text(filled, make_tables()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: other --><!-- end -->", "no benchmark has the table 'other'"),
        ("a <!-- figure: toy.vae.si_sdr -->1<!-- end -->", "'vae' is missing"),
        ("a <!-- figure: toy.tcvae.elbo -->1<!-- end -->", "'elbo' is missing"),
        ("a <!-- figure: toy.input.cost -->1<!-- end -->", "'cost' is missing"),
        ("a <!-- figure: tcvae -->1<!-- end -->", "no benchmark has the figure 'tcvae'"),
        ("a <!-- figure: toy.tcvae.cost -->1", "open or misspelled"),
        ("a <!--figure: toy.tcvae.cost -->1", "open or misspelled"),
        ("a 1<!-- end -->", "open or misspelled"),
        (
            "a <!-- figure: toy.tcvae.cost -->1 <!-- figure: toy.tcvae.cost -->1<!-- end -->",
            "not closed before the next",
        ),
        ("a\n <!-- figure: toy.tcvae.cost -->1<!-- end -->", "begins a line"),
    ],
)
def test_wrong_markers_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.fill_text(text, make_tables())


def write_project(root: Path) -> None:
    for folder in ("docs/results", "benchmarks", "avse_ppl/models/pretrained/tcvae"):
        (root / folder).mkdir(parents=True)
    marked = "it is <!-- figure: toy.tcvae.pesq -->1<!-- end -->\n"
    for name in ("README.md", "docs/results/a.md", "avse_ppl/models/pretrained/tcvae/README.md"):
        (root / name).write_text(marked)
    (root / "benchmarks" / "RESULTS.md").write_text("none\n")
    results.write_tables("toy", make_tables(), root / "benchmarks" / "results")


def test_all_pages_are_filled_or_none(tmp_path: Path) -> None:
    write_project(tmp_path)
    changed = figures.write_pages(tmp_path)
    assert {str(page.relative_to(tmp_path)) for page in changed} == {
        "README.md",
        "docs/results/a.md",
        "avse_ppl/models/pretrained/tcvae/README.md",
    }
    assert all("-->1.664<!--" in page.read_text() for page in changed)
    assert figures.write_pages(tmp_path) == []
    assert figures.list_unshown(make_tables(), tmp_path) == ["toy", "toy.speed"]
    (tmp_path / "README.md").write_text("<!-- table: toy --><!-- end -->\n")
    assert figures.list_unshown(make_tables(), tmp_path) == ["toy.speed"]
    (tmp_path / "README.md").write_text("it is <!-- figure: toy.tcvae.pesq -->1<!-- end -->\n")
    (tmp_path / "docs" / "results" / "a.md").write_text("it <!-- figure: toy.x.y -->1<!-- end -->")
    with pytest.raises(ValueError, match=r"docs/results/a\.md: no benchmark has the figure"):
        figures.write_pages(tmp_path)
    assert "-->1<!--" in (tmp_path / "README.md").read_text()


# --- results -------------------------------------------------------------------------------------


def test_tables_are_read_back_and_those_not_measured_stay(tmp_path: Path) -> None:
    tables = make_tables()
    results.write_tables("toy", tables, tmp_path)
    assert results.read_tables(tmp_path) == tables
    new = Table([Column("name", "name", "{name}")])
    new.add_row("a", name="b")
    found = results.run_benchmark("toy", lambda: {"toy": new}, lambda: "two cores", tmp_path)
    again = results.read_tables(tmp_path)
    assert again == {"toy": found["toy"], "toy.speed": tables["toy.speed"]}
    assert again["toy"].machine == "two cores" and again["toy"].date > "2026-01-02"


def test_a_benchmark_writes_its_own_tables_only(tmp_path: Path) -> None:
    for made in ({"other": make_tables()["toy"]}, {"toy": Table([])}):
        with pytest.raises(ValueError, match="expected a table of toy with rows"):
            results.run_benchmark("toy", lambda made=made: made, lambda: "m", tmp_path)
    results.write_tables("toy", make_tables(), tmp_path)
    (tmp_path / "toy.json").rename(tmp_path / "other.json")
    with pytest.raises(ValueError, match="expected tables of other, found 'toy'"):
        results.read_tables(tmp_path)


def test_rows_have_names_that_figures_can_have() -> None:
    table = make_tables()["toy"]
    for key in ("tcvae", "a.b", "a b", ""):
        with pytest.raises(ValueError, match="expected a new name"):
            table.add_row(key, prior="x")
    with pytest.raises(ValueError, match=r"no column shows \['elbo'\]"):
        table.add_row("new", elbo=1.0)
