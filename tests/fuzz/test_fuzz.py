"""Damaged files of every kind: refused by an error of ours that names them, or read sanely."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import judge, make_mutant, run, warm_up, write_seeds
from tests.fuzz.formats import FORMATS

NAMES = list(FORMATS)
MUTANTS = 250
SEED = 0


def test_a_few_hundred_mutants(tmp_path):
    found = list(run(tmp_path / "fuzz", NAMES, SEED, range(MUTANTS)))
    assert {one.format for one in found} == set(NAMES)
    kept = [one for one in found if not one.is_failure]
    wrong = [
        f"python -m tests.fuzz --seed {SEED} --first {one.number} --mutants 1: {one.format}, "
        f"{one.kind}, {one.place} {one.text}"
        for one in found
        if one.is_failure
    ]
    assert not wrong, "\n".join(wrong)
    assert len(kept) == MUTANTS
    # Mutations neither leave everything as it is, nor destroy everything.
    read = sum(one.kind == "read" for one in kept)
    assert 0.15 * MUTANTS < read < 0.85 * MUTANTS


def test_every_example_is_read(tmp_path):
    write_seeds(tmp_path, NAMES)
    assert warm_up(tmp_path, NAMES) == []


def test_a_mutant_is_made_from_its_number_alone(tmp_path):
    write_seeds(tmp_path, ["wav", "log"])
    mutants = [make_mutant(tmp_path, ["wav", "log"], 3, number) for number in range(20)]
    assert mutants[13] == make_mutant(tmp_path, ["wav", "log"], 3, 13)
    assert len({data for _, _, data in mutants}) == 20


def test_what_counts_as_an_error_of_the_library(tmp_path):
    from avse_ppl import Posterior
    from avse_ppl.utils.files import read_json

    (tmp_path / "a.nc").write_text("[")
    for read, path, kind in (
        (Posterior.load, tmp_path / "a.nc", "refused"),
        (read_json, tmp_path / "a.nc", "refused"),
        (read_json, tmp_path, "refused"),
        (lambda path: int(path.read_text()), tmp_path / "a.nc", "foreign error"),
        (lambda path: read_json(path, []), b"", "foreign error"),
    ):
        with pytest.raises(Exception) as caught:
            read(path)
        assert judge(caught.value, tmp_path / "a.nc")[0] == kind
