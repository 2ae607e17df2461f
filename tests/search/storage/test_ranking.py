import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from rich.console import Console

from model.crystals.crystal import Crystal
from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.reporting.tables import reference_table, results_table
from search.storage.cif import cif_text, write_cifs
from search.storage.ranking import rank
from search.storage.results import ResultStore, load_results
from search.storage.rows import Status, StoredCrystal, unpack_or_raise
from tests.support.crystals import rattled


def candidate(cobaltate, name, crystal, *, e_d, **columns):
    row = replace(
        cobaltate["rows"][0],
        candidate=name,
        formula=crystal.formula,
        n_atoms=len(crystal),
        final=StoredCrystal.of(crystal),
        e_d=e_d,
        space_group="R-3m",
        space_group_number=166,
        duplicate_of=None,
        frameworks=[],
        polished=True,
        polish_fall=0.0,
        saddle_fall=0.0,
        energy=e_d,
    )
    return replace(row, **columns)


@pytest.fixture
def frame(tmp_path, cobaltate, licoo2, lisi):
    """Five relaxed candidates, two of them the same crystal, and three that did not make it."""
    filled = {"role": "from_host", "framework": "f", "framework_space_group": "R-3m", "parent": "best"}
    strange = {"space_group": None, "space_group_number": None, "products": {"Li": 0.5, "Si": 0.5}}
    rows = [
        candidate(cobaltate, "again", rattled(licoo2, width=0.02, seed=1), e_d=0.02, **filled),
        candidate(cobaltate, "best", licoo2, e_d=0.01),
        candidate(cobaltate, "silicide", lisi, e_d=-0.05, **strange),
        candidate(cobaltate, "wide", lisi.replace(lattice=lisi.lattice * 1.2), e_d=0.3, **strange),
        candidate(cobaltate, "odd", licoo2, e_d=0.03),
        candidate(cobaltate, "unconverged", licoo2, e_d=-9.0, status=Status.UNCONVERGED),
        candidate(cobaltate, "rejected", licoo2, e_d=None, status=Status.REJECTED, final=None),
        candidate(cobaltate, "failed", licoo2, e_d=None, status=Status.FAILED, final=None),
    ]
    ResultStore(tmp_path).append("task", rows)
    return load_results(tmp_path)


def rendered(table, width=160):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def names(frame):
    return frame["candidate"].tolist()


def test_only_relaxed_crystals_are_ranked(frame):
    assert names(rank(frame, top=9, distinct=False)) == ["silicide", "best", "again", "odd", "wide"]


def test_of_equal_crystals_only_the_best_is_ranked(frame):
    assert names(rank(frame, top=9)) == ["silicide", "best", "odd", "wide"]


def test_crystals_that_the_judge_relaxes_into_the_same_one_are_ranked_once(tmp_path, cobaltate, licoo2, lisi):
    wide, wider = (lisi.replace(lattice=lisi.lattice * factor) for factor in (1.2, 1.4))
    rows = [
        candidate(
            cobaltate,
            name,
            crystal,
            e_d=e_d,
            e_d_judge=by_judge,
            energy_judge=by_judge,
            final_judge=StoredCrystal.of(relaxed),
        )
        for name, crystal, e_d, by_judge, relaxed in (
            ("a", lisi, 0.1, 0.01, lisi),
            ("b", wide, 0.2, 0.011, lisi),
            ("c", wider, 0.3, 0.02, wide),
        )
    ]
    ResultStore(tmp_path).append("task", [*rows, candidate(cobaltate, "d", licoo2, e_d=0.03)])
    frame = load_results(tmp_path)
    assert names(rank(frame, top=9)) == ["a", "c", "d"]
    assert names(rank(frame, top=9, distinct=False)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("top", "expected"), [(1, ["silicide"]), (2, ["silicide", "best"]), (3, ["silicide", "best", "odd"])]
)
def test_repeats_take_no_place_of_the_top(frame, top, expected):
    assert names(rank(frame, top=top)) == expected
    assert len(rank(frame, top=top, distinct=False)) == top


def test_crystals_without_a_space_group_repeat_each_other_all_the_same(frame):
    silicide = frame[frame["candidate"] == "silicide"]
    twice = pd.concat([silicide, silicide.assign(candidate="copy")], ignore_index=True)
    assert names(rank(twice, top=9)) == ["silicide"]


def test_a_formula_or_a_role_can_be_asked_for(frame):
    assert names(rank(frame, top=9, formula="LiSi")) == ["silicide", "wide"]
    assert names(rank(frame, top=9, role="from_host")) == ["again"]
    assert names(rank(frame, top=9, formula="LiCoO2", role="new")) == ["best", "odd"]
    assert rank(frame, top=9, formula="Li2Si").empty
    assert results_table(rank(frame, top=9, formula="Li2Si")).row_count == 0


def test_a_role_is_ranked_by_itself_even_if_what_it_repeats_has_another(frame):
    repeats = frame.assign(duplicate_of=frame["candidate"].map({"again": "best"}))
    assert names(rank(repeats, top=9, role="from_host")) == ["again"]
    assert "again" not in names(rank(repeats, top=9))


def test_a_narrow_terminal_shows_names_and_numbers_whole(frame):
    console = Console(width=64)
    with console.capture() as captured:
        console.print(results_table(rank(frame, top=9, distinct=False)))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 64
    assert "LiCoO2" in text and "R-3m" in text and "-50.0" in text


def test_the_table_shows_what_matters_and_nothing_where_nothing_is(frame):
    text = rendered(results_table(rank(frame, top=9, distinct=False)))
    assert "Lowest decomposition energies (chgnet-0.3.0)" in text
    lines = [line for line in text.splitlines() if "LiSi" in line or "LiCoO2" in line]
    assert len(lines) == 5
    assert "-50.0" in lines[0]
    assert "0.50 Li + 0.50 Si" in lines[0]
    assert "R-3m" in lines[1]
    assert "from_host" in lines[2]
    assert "nan" not in text.lower()
    assert "None" not in text


def test_cifs_hold_the_crystals_ranked(frame, tmp_path):
    best = rank(frame, top=9, distinct=False)
    paths = write_cifs(best, tmp_path / "best")
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [path.name for path in paths]
    for path, packed in zip(paths, best["final"], strict=True):
        structure, expected = Structure.from_file(path), unpack_or_raise(packed).to_pymatgen()
        assert structure.composition.reduced_formula == expected.composition.reduced_formula
        assert StructureMatcher().fit(structure, expected)
        assert structure.volume / len(structure) == pytest.approx(expected.volume / len(expected), rel=0.02)


def test_a_cif_is_named_by_rank_formula_space_group_and_e_d(frame, tmp_path):
    paths = write_cifs(rank(frame, top=9), tmp_path)
    assert [path.name for path in paths] == [
        "001_LiSi_P1_-50meV_silicide.cif",
        "002_LiCoO2_R-3m_+10meV_best.cif",
        "003_LiCoO2_R-3m_+30meV_odd.cif",
        "004_LiSi_P1_+300meV_wide.cif",
    ]


def test_cifs_of_the_last_ranking_are_replaced_and_a_persons_files_stay(frame, tmp_path):
    (tmp_path / "001_notes.cif").write_text("mine")
    (tmp_path / "readme.txt").write_text("mine")
    write_cifs(rank(frame, top=9), tmp_path)
    (path,) = write_cifs(rank(frame, top=1), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == sorted(["001_notes.cif", "readme.txt", path.name])


def test_a_cif_shows_the_symmetry_of_a_slightly_distorted_crystal(cobaltate, licoo2, tmp_path):
    ResultStore(tmp_path).append(
        "task", [candidate(cobaltate, "a", rattled(licoo2, width=0.01), e_d=0.0, space_group="R-3m")]
    )
    (path,) = write_cifs(load_results(tmp_path), tmp_path / "best")
    assert "R-3m" in path.read_text()
    assert len(Structure.from_file(path)) == 12  # the hexagonal cell


# --- reference ----------------------------------------------------------------------------------------------------


def test_the_reference_table_lists_the_phases_of_the_system():
    table = reference_table("Si-Li")
    text = rendered(table)
    phases = packaged_reference().of_system(["Li", "Si"])
    assert table.row_count == len(phases)
    for formula in phases["formula"]:
        assert formula in text
    assert "Si-Li in " in text


def test_stable_phases_come_first():
    table = reference_table("Li-Si")
    above = [float(text) for text in table.columns[3].cells]
    assert above == sorted(above)
    stable = {
        entry.composition.reduced_formula for entry in Stability(packaged_reference(), "Li-Si").diagram.stable_entries
    }
    first = list(table.columns[1].cells)[: len(stable)]
    assert set(first) == stable
    assert np.allclose(above[: len(stable)], 0, atol=0.05)


@pytest.mark.parametrize(("system", "words"), [("Li-Xx", "'Xx'"), ("Li-Li", "listed twice"), ("", "unknown element")])
def test_a_system_that_is_none_is_refused(system, words):
    with pytest.raises(ValueError, match=words):
        reference_table(system)


@pytest.mark.parametrize(
    ("cell", "group"), [((4, 5, 6.3, 90, 91, 90), "P2/m"), ((3.06, 3.06, 3.06, 89.5, 89.5, 89.5), "R-3m")]
)
def test_a_cif_keeps_a_small_angle(cell, group):
    positions = [[0, 0, 0], [0.5, 0.5, 0.5]]
    structure = Structure(Lattice.from_parameters(*cell), ["Fe", "O"], positions)
    written = Structure.from_str(cif_text(Crystal.from_pymatgen(structure)), fmt="cif")
    assert written.get_space_group_info(symprec=1e-3, angle_tolerance=-1)[0] == group
    assert written.volume / len(written) == pytest.approx(structure.volume / 2, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")  # of thirds, which pymatgen makes exact
@pytest.mark.parametrize(
    ("group", "cell", "sites"),
    [
        ("Fd-3m", Lattice.cubic(5.43), {"Si": [0, 0, 0]}),  # two origins in the tables
        ("R-3m", Lattice.hexagonal(2.82, 14.05), {"Li": [0, 0, 0.5], "Co": [0, 0, 0], "O": [0, 0, 0.26]}),
        ("P6_3/mmc", Lattice.hexagonal(3.16, 12.3), {"Mo": [1 / 3, 2 / 3, 0.25], "S": [1 / 3, 2 / 3, 0.62]}),
        ("P2_1/c", Lattice.monoclinic(5.1, 5.2, 5.3, 99.2), {"Zr": [0.28, 0.04, 0.21], "O": [0.07, 0.33, 0.34]}),
        ("Pnma", Lattice.orthorhombic(10.3, 6.0, 4.7), {"Fe": [0.28, 0.25, 0.97], "P": [0.1, 0.25, 0.42]}),
    ],
)
def test_a_cif_holds_one_atom_per_orbit_and_the_crystal_comes_back(group, cell, sites):
    structure = Structure.from_spacegroup(group, cell, list(sites), list(sites.values())).get_primitive_structure()
    text = cif_text(Crystal.from_pymatgen(structure))
    assert re.search(rf"_symmetry_space_group_name_H-M '?{group}'?\n", text)
    assert len(re.findall(r"^[A-Z][a-z]? [A-Z][a-z]?\d+ ", text, re.MULTILINE)) == len(sites)
    back = Structure.from_str(text, fmt="cif")
    assert StructureMatcher(stol=0.01).fit(structure, back)
    assert back.get_space_group_info(symprec=1e-3)[0] == group
