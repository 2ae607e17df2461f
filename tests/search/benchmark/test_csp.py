"""The benchmark of crystal structure prediction: its targets, what is hidden, and what counts as found."""

import json
from dataclasses import replace

import jsonschema
import numpy as np
import pandas as pd
import pytest

from model.crystals.composition import CellFormula
from search.benchmark.csp import CspRecord, CspSettings, configuration, run_csp, summarise
from search.benchmark.csp_targets import Target, read_targets
from search.planning.campaign import known_types
from search.planning.prepare import load_reference
from search.reporting.records import schema


@pytest.fixture
def structures(tmp_path, licoo2):
    """A file with two crystals of 4 and 8 atoms in split test and one in split train."""
    double = licoo2.to_ase() * (2, 1, 1)
    crystals = {"a": licoo2, "b": type(licoo2).from_ase(double), "c": licoo2}
    lattices = [one.to_pymatgen().lattice for one in crystals.values()]
    frame = pd.DataFrame(
        {
            "material_id": list(crystals),
            "n_atoms": [len(one) for one in crystals.values()],
            "split": ["test", "test", "train"],
            "cell": [[*one.abc, *one.angles] for one in lattices],
            "atomic_numbers": [one.numbers.tolist() for one in crystals.values()],
            "frac_coords": [one.fractional.ravel().tolist() for one in crystals.values()],
        }
    )
    path = tmp_path / "structures.parquet"
    frame.to_parquet(path)
    return path


def test_targets_of_a_file_are_chosen_by_split_and_size(structures):
    targets, hidden = read_targets(structures, split="test", max_atoms=4)
    assert [(one.name, str(one.cell), one.space_group) for one in targets] == [("a", "LiO2Co", 166)]
    assert hidden == []
    assert len(read_targets(structures)[0]) == 3
    few = [one.name for one in read_targets(structures, limit=2)[0]]
    assert {one.name for one in read_targets(structures, limit=1)[0]} < set(few)


def test_targets_of_a_table_may_be_formulas_and_all_are_hidden(structures, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("material_id,pretty_formula,nsites,spacegroup\na,LiCoO2,4,166\nx,MgO,2,225\n")
    targets, hidden = read_targets(table, structures=structures)
    assert [(str(one.cell), one.crystal is None, one.space_group) for one in targets] == [
        ("LiO2Co", False, 166),
        ("OMg", True, 225),
    ]
    assert hidden == ["LiCoO2", "MgO"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("formula\nMgO\n", "no column material_id"),
        ("material_id\nx\n", "x has no crystal"),
        ("material_id,pretty_formula,nsites\nx,MgO,3\n", "3 atoms are no whole number of formula units MgO"),
    ],
)
def test_a_bad_table_is_refused(text, message, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_targets(table)


def test_an_empty_choice_is_refused(structures):
    with pytest.raises(ValueError, match="no target of 50 to 60 atoms in split 'test'"):
        read_targets(structures, split="test", min_atoms=50, max_atoms=60)


def oxide():
    return Target(name="x", cell=CellFormula.parse("Mg2O2"), crystal=None, space_group=225)


def test_a_blind_search_knows_nothing_of_the_system_nor_of_hidden_formulas():
    config = configuration(oxide(), CspSettings(seconds=1), ["CaO"])
    library = known_types(config).library
    assert not library.find("MgO") and not library.find("CaO")
    assert library.find("SrO")
    phases = load_reference(config).phases
    assert "MgO" not in set(phases["formula"]) and {"Mg", "O2"} <= set(phases["formula"])
    sighted = configuration(oxide(), CspSettings(seconds=1, blind=False), ["CaO"])
    assert known_types(sighted).library.find("MgO")


def record(**changes):
    content = {
        "name": "a", "formula": "MgO", "atoms": 2, "known": True, "space_group": 225, "digest": "d", "seconds": 10.0,
        "candidates": 9, "relaxed": 8, "rank": 1, "found_seconds": 2.0, "found_after": 1, "generator": "random",
        "prototype": None, "groups": (225, 194), "energy": -6.0, "known_energy": -6.0,
    }  # fmt: skip
    return CspRecord(**{**content, **changes})


def test_shares_are_those_of_targets_whose_crystal_is_known():
    records = [
        record(),
        record(rank=3, groups=(194, 225), energy=-6.1),
        record(rank=None, generator=None, found_seconds=None, groups=(1,), energy=-5.9),
        record(known=False, rank=None, generator=None, found_seconds=None, known_energy=None),
    ]
    found = summarise(records)
    assert found["targets"] == 3
    shares = [found[key] for key in ("found_any", "top1", "top5", "as_low")]
    assert shares == pytest.approx([2 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert found["space_group_top1"] == 0.5 and found["space_group_top5"] == 0.75
    assert found["generators"] == {"random": 2}
    jsonschema.validate({"summary": found}, schema("benchmark csp"))


@pytest.mark.slow
def test_rock_salt_is_found_and_a_second_call_repeats_nothing(tmp_path, monkeypatch):
    from model.library.phases import packaged_library

    crystal = next(one.crystal for one in packaged_library().find("MgO") if one.space_group == 225)
    target = replace(oxide(), cell=CellFormula.parse("MgO"), crystal=crystal)
    settings = CspSettings(relaxations=4, generators=("ion_substitution",))
    result = run_csp([target], settings, out=tmp_path / "csp.json")
    assert result["summary"]["top1"] == result["summary"]["as_low"] == 1.0
    assert json.loads((tmp_path / "csp.json").read_text()) == json.loads(json.dumps(result))
    soon = replace(settings, relaxations=1000, until_found=True)
    first = run_csp([target], soon, out=tmp_path / "first.json")
    assert first["summary"]["found_any"] == 1.0 and first["summary"]["top1"] is None
    assert first["records"][0]["relaxed"] < 20
    monkeypatch.setattr("search.benchmark.timed_search.search_here", lambda *_: pytest.fail("searched again"))
    assert run_csp([target], settings, out=tmp_path / "csp.json")["summary"] == result["summary"]
    with pytest.raises(ValueError, match="a search with other settings"):
        run_csp([target], replace(settings, seed=1), out=tmp_path / "csp.json")
    assert np.isfinite(result["records"][0]["energy"])
