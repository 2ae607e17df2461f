"""All commands read files alike: what one refuses, all refuse in the same words, and what one says, all say."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import bulk
from ase.constraints import FixAtoms
from pymatgen.core import Composition

from search.planning.frameworks import frameworks_from_files
from search.storage.crystal_files import is_identifier, read_crystal, read_files
from tests.support.cifs import cif

FILES = Path(__file__).parents[3] / "data" / "users_files"
PARTLY_OCCUPIED = ("SrVO2H-shared-site.cif", "LiCl-Vac.cif", "occupancies-sum-1.001.cif")
REFUSED = {
    "brucite-label-OH.cif": "site OH: this label is not an element",
    "LiCl-hydrate-Wat.cif": "site Wat1: 'Wat' is not an element",
    "label-T1.cif": "site T1: this label is not an element",
    "atomic-number-as-occupancy.cif": "site Mg1: its occupancy is 4",
}


@pytest.fixture
def commands(tmp_path):
    """For a file, the arguments of every command that reads it."""

    def for_file(path: Path) -> dict[str, list[object]]:
        search = tmp_path / "search.yaml"
        system = {"name": "x", "compositions": {"system": "Li-Si"}, "frameworks": {"files": [str(path)]}}
        search.write_text(yaml.safe_dump(system))
        known = tmp_path / "known.vasp"
        shutil.copy(FILES / "POSCAR-LiCl-selective-dynamics", known)
        return {
            "evaluate": ["evaluate", path],
            "relax": ["relax", path, "--out", tmp_path / "relaxed", "--steps", 0],
            "inpaint": ["inpaint", path, "--guest", "Li", "--count", 1, "--samples", 1, "--out", tmp_path / "filled"],
            "analyse": ["analyse", path, "--out", tmp_path / "analysis"],
            "against": ["analyse", known, "--against", path, "--out", tmp_path / "analysis"],
            "dft write": ["dft", "write", path, "--out", tmp_path / "dft"],
            "validate": ["validate", search],
            "search": ["search", search, "--run", tmp_path / "run"],
        }

    return for_file


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_crystal_is_refused_by_every_command_in_the_same_words(commands, call, name) -> None:
    for command, arguments in commands(FILES / name).items():
        code, _, error = call(*arguments)
        assert code == 2 and name in error and REFUSED[name] in error, (command, error)


@pytest.mark.parametrize("name", PARTLY_OCCUPIED)
def test_partial_occupancy_is_refused_by_every_command_but_inpaint(commands, call, name) -> None:
    for command, arguments in commands(FILES / name).items():
        if command == "inpaint":
            continue
        code, _, error = call(*arguments)
        assert code == 2 and name in error and "partially occupied sites are not supported" in error, (command, error)
        assert "hostguide inpaint FILE" in error


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("brucite-without-H.cif", "2 H of the file's formula, Mg1 H2 O2, have no site"),
        ("three-blocks-one-broken.cif", "data_bad:"),
    ],
)
def test_what_the_user_should_know_is_said_by_every_command(commands, call, name, words) -> None:
    for command, arguments in commands(FILES / name).items():
        if command == "search":
            continue  # a search says what validate says, and then runs
        _, said, _ = call(*arguments)
        assert words in said, command


def test_a_block_that_cannot_be_read_is_a_row_of_its_own_and_an_exit_code(tmp_path, call) -> None:
    file, table = FILES / "three-blocks-one-broken.cif", tmp_path / "table.csv"
    code, said, _ = call("evaluate", file, "--out", table)
    rows = pd.read_csv(table).set_index("name")
    assert code == 1 and "1 of 3 could not be evaluated" in said
    assert rows["formula"].fillna("").to_dict() == {
        "three-blocks-one-broken-1": "Na4Cl4",
        "three-blocks-one-broken-2": "",
        "three-blocks-one-broken-3": "Cs1Cl1",
    }
    assert rows.loc["three-blocks-one-broken-2", "problem"].startswith("unreadable: block data_bad: site Cl1")
    code, said, _ = call("relax", file, "--out", tmp_path / "relaxed", "--steps", 0)
    outcomes = pd.read_csv(tmp_path / "relaxed" / "summary.csv").set_index("name")["outcome"]
    assert code == 1 and outcomes["three-blocks-one-broken-2"] == "unreadable" and "1 unreadable" in said


@pytest.mark.parametrize(
    ("name", "formula", "energy"),
    [("ZnO-three-digits.cif", "Zn2O2", -4.8716), ("POSCAR-without-names", "Mg4O4", -6.3083)],
)
def test_the_energy_is_that_of_the_crystal_in_the_file(tmp_path, call, name, formula, energy) -> None:
    code, _, _ = call("evaluate", FILES / name, "--out", tmp_path / "table.csv")
    (row,) = pd.read_csv(tmp_path / "table.csv").to_dict("records")
    assert code == 0 and Composition(row["formula"]) == Composition(formula)
    assert row["energy"] == pytest.approx(energy, abs=2e-4)


def test_mixed_valence_is_no_disorder_for_any_command(commands, call) -> None:
    file = FILES / "LiMn2O4-mixed-valence.cif"
    (framework,) = frameworks_from_files([file])
    assert len(framework.host.crystal) == 14
    for command in ("evaluate", "analyse", "dft write"):
        code, _, error = call(*commands(file)[command])
        assert code == 0, (command, error)
    code, _, error = call("inpaint", file)
    assert code == 2 and "has no partially occupied sites: give --guest and --count" in error


@pytest.mark.parametrize(
    ("name", "formula"),
    [("SrVO2H-shared-site.cif", "SrVO2H"), ("LiCl-Vac.cif", "LiCl2"), ("occupancies-sum-1.001.cif", "Mg3NiO4")],
)
def test_partially_occupied_sites_are_ordered_without_losing_an_element(tmp_path, call, name, formula) -> None:
    code, said, error = call("inpaint", FILES / name, "--samples", 1, "--out", tmp_path / "out")
    assert code == 0, error
    (path,) = (tmp_path / "out").glob("*.cif")
    assert read_crystal(path).crystal.composition.reduced_formula == Composition(formula).reduced_formula, said


# --- fixed atoms --------------------------------------------------------------------------------------------------


def moved(before: Path, after: Path) -> np.ndarray:
    """(n,) Å by which atoms have moved."""
    one, other = read_crystal(before).crystal, read_crystal(after).crystal
    steps = other.fractional - one.fractional
    return np.linalg.norm((steps - np.rint(steps)) @ one.lattice, axis=1)


def test_atoms_that_a_poscar_fixes_stay_and_the_others_relax(tmp_path, call) -> None:
    file, out = FILES / "POSCAR-LiCl-selective-dynamics", tmp_path / "out"
    code, said, _ = call("relax", file, "--cell", "fixed", "--fmax", 0.002, "--out", out)
    (row,) = pd.read_csv(out / "summary.csv").to_dict("records")
    steps = moved(file, out / f"{file.name}.cif")
    assert code == 0 and "7 of 8 atoms are fixed, as the file says" in said
    assert steps[0] == pytest.approx(0.193, abs=2e-3) and steps[1:].max() < 1e-6  # those of stock CHGNet with ASE
    assert row["energy_final"] == pytest.approx(-3.97953, abs=2e-5)


@pytest.mark.parametrize("name", ["file.extxyz", "file.traj"])
def test_atoms_that_ase_fixes_stay_and_stay_fixed_in_the_results(tmp_path, call, name) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.positions[0] += [0.15, 0.1, 0.05]
    atoms.set_constraint(FixAtoms([2, 3, 4, 5, 6, 7]))
    ase.io.write(tmp_path / name, atoms)
    code, said, _ = call("relax", tmp_path / name, "--out", tmp_path / "out.extxyz")
    steps = moved(tmp_path / name, tmp_path / "out.extxyz")
    assert code == 0 and "cell fixed" in said
    assert steps[2:].max() < 1e-6 and steps[:2].min() > 1e-4
    fixed = read_crystal(tmp_path / "out.extxyz").fixed
    assert fixed is not None and fixed.tolist() == [False] * 2 + [True] * 6


def test_a_cell_that_may_relax_takes_fixed_atoms_along_and_says_so(tmp_path, call) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.set_constraint(FixAtoms([1]))
    ase.io.write(tmp_path / "file.traj", atoms)
    _, said, _ = call("relax", tmp_path / "file.traj", "--cell", "full", "--out", tmp_path / "out.extxyz", "--steps", 3)
    assert "1 of 8 atoms are fixed, as the file says. They move with the cell" in said


def test_elements_to_move_and_atoms_that_the_file_fixes_are_combined(tmp_path, call) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(tmp_path / "file.traj", atoms)
    call("relax", tmp_path / "file.traj", "--free", "Na", "--out", tmp_path / "out.extxyz", "--steps", 5)
    steps = moved(tmp_path / "file.traj", tmp_path / "out.extxyz")
    free = (atoms.numbers == 11) & (np.arange(8) > 0)
    assert steps[free].min() > 1e-3 and steps[~free].max() < 1e-6


def test_inpaint_says_that_it_does_not_keep_atoms_fixed(tmp_path, call) -> None:
    (tmp_path / "Co3O6.cif").write_text(
        cif(
            "2.816 2.816 14.05 90 90 120",
            "R -3 m",
            ["Co Co 0 0 0", "O O 0 0 .26"],
            columns="label type_symbol fract_x fract_y fract_z",
        )
    )
    atoms = read_crystal(tmp_path / "Co3O6.cif").crystal.to_ase()
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    ase.io.write(tmp_path / "host.extxyz", atoms)
    options = ["--guest", "Li", "--count", 1, "--samples", 1, "--fix-host", "--out", tmp_path / "out"]
    _, said, _ = call("inpaint", tmp_path / "host.extxyz", *options)
    assert "inpaint does not keep the 3 atoms fixed" in " ".join(said.split())


@pytest.mark.parametrize("name", ["host.extxyz", "host.traj", "host.xyz"])
def test_commands_for_one_crystal_take_the_last_frame_and_say_so(commands, tmp_path, call, name) -> None:
    frames = [bulk("MgO", "rocksalt", a=a) for a in (4.0, 4.1, 4.2)]
    ase.io.write(tmp_path / name, frames, format="traj" if name.endswith("traj") else "extxyz")
    for command in ("analyse", "validate"):
        _, said, error = call(*commands(tmp_path / name)[command])
        assert "host: it has 3 crystals; frame 3 was taken." in said, (command, error)
    assert read_crystal(tmp_path / name).crystal.volume == pytest.approx(4.2**3 / 4)


def test_what_is_said_of_many_crystals_is_printed_once(tmp_path, call) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "many.traj", [atoms] * 20)
    _, said, _ = call("relax", tmp_path / "many.traj", "--out", tmp_path / "out.extxyz", "--steps", 0)
    assert said.count("atoms are fixed, as the file says") == 1
    assert "many-01, many-02, many-03 and 17 more: 2 of 2 atoms are fixed" in said


def test_fixed_atoms_of_one_file_do_not_fix_the_cell_of_another(tmp_path, call) -> None:
    loose, held = bulk("NaCl", "rocksalt", a=5.4), bulk("NaCl", "rocksalt", a=5.4)
    held.set_constraint(FixAtoms([0]))
    for name, atoms in (("loose.extxyz", loose), ("held.extxyz", held)):
        ase.io.write(tmp_path / name, atoms)
    files, out = [tmp_path / "loose.extxyz", tmp_path / "held.extxyz"], tmp_path / "out"
    code, _, said = call("relax", *files, "--out", out)
    assert code == 2 and "held has fixed atoms" in said and "--cell" in said and not out.exists()
    code, *_ = call("relax", *files, "--out", out, "--cell", "full", "--steps", 1)
    assert code == 1 and (out / "loose.cif").exists()


def test_crystals_of_several_files_have_names_of_their_own(tmp_path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    ase.io.write(tmp_path / "a.extxyz", [atoms, atoms])
    ase.io.write(tmp_path / "a-1.extxyz", atoms)
    names = [one.name for one in read_files([tmp_path / "a.extxyz", tmp_path / "a-1.extxyz"]).crystals]
    assert names == ["a-1", "a-2", "a-1-2"]


# --- identifiers of known phases ----------------------------------------------------------------------------------


def test_an_identifier_is_taken_for_a_file_by_every_command(commands, call) -> None:
    for command, arguments in commands(Path("mp-149")).items():
        if command in ("search", "validate"):
            continue  # these take crystals that are hosts
        code, said, error = call(*arguments)
        assert code == (1 if command == "relax" else 0), (command, error)  # that has no steps
        assert "Si" in said or command == "against"  # which compares LiCl with it


def test_an_identifier_that_is_not_in_the_library_is_refused_by_every_command(commands, call) -> None:
    for command, arguments in commands(Path("mp-0")).items():
        code, _, error = call(*arguments)
        assert code == 2 and "mp-0 is not in the library of known phases" in error, command
        assert "give its crystal as a file" in error


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_crystal("mp-149").crystal.formula == "Si"
    ase.io.write("mp-149", bulk("MgO", "rocksalt", a=4.2), format="extxyz")
    assert not is_identifier("mp-149") and is_identifier("mp-22862") and not is_identifier("mp-22862.cif")


def test_whether_a_crystal_is_known_is_shown_and_stored(tmp_path, call) -> None:
    """Silicon of which one atom has moved by 0.05 Å is silicon; magnesia with helium is new."""
    names = ("POSCAR-without-names", "Si_displaced.vasp", "HeMgO.cif")
    out, files = tmp_path / "points.csv", [FILES / name for name in names]
    code, said, _ = call("evaluate", *files, "--out", out)
    known = pd.read_csv(out).set_index("name")["known"].to_dict()
    assert code == 0 and "known" in said
    assert known == {"POSCAR-without-names": "mp-1265", "Si_displaced": "mp-149", "HeMgO": "new"}
    call("relax", FILES / "Si_displaced.vasp", "--out", tmp_path / "relaxed")
    (row,) = pd.read_csv(tmp_path / "relaxed" / "summary.csv").to_dict("records")
    assert row["known"] == "mp-149"
    call("relax", FILES / "Si_displaced.vasp", "--out", tmp_path / "relaxed.extxyz")
    assert ase.io.read(tmp_path / "relaxed.extxyz").info["known"] == "mp-149"
