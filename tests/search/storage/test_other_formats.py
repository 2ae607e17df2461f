"""POSCARs, extended XYZ and trajectories as people have them: names, fixed atoms, moments, frames."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian, FixedPlane
from pymatgen.core import Composition, Structure

from search.storage.crystal_files import read_crystal, read_files, read_structure

FILES = Path(__file__).parents[2] / "data" / "users_files"
SALT = bulk("NaCl", "rocksalt", a=5.64)
CUBE = "1.0\n4.2 0 0\n0 4.2 0\n0 0 4.2"
PLACES = ["0 0 0", ".5 .5 0", ".5 0 .5", "0 .5 .5", ".5 0 0", "0 .5 0", "0 0 .5", ".5 .5 .5"]


def poscar(comment: str, names: str, places: list[str], *, selective: bool = False, counts: str = "4 4") -> str:
    """A POSCAR; without ``names``, as VASP 4 wrote it."""
    lines = [comment, CUBE, *([names] if names else []), counts, *(["Selective dynamics"] if selective else [])]
    return "\n".join([*lines, "Direct", *places]) + "\n"


# --- POSCAR -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "places"),
    [
        ("Mg O", PLACES),
        (" Mg   O ", PLACES),
        ("made by a program", [f"{place} {name}" for place, name in zip(PLACES, 4 * ["Mg"] + 4 * ["O"], strict=True)]),
        ("", [f"{place} {name}" for place, name in zip(PLACES, 4 * ["Mg"] + 4 * ["O"], strict=True)]),
        ("Mg O", [f"{place} T T T" for place in PLACES]),
    ],
)
def test_the_elements_of_an_old_poscar_are_read_where_they_stand(tmp_path, comment, places) -> None:
    (tmp_path / "POSCAR").write_text(poscar(comment, "", places, selective="T" in places[0]))
    read = read_crystal(tmp_path / "POSCAR")
    assert read.crystal.composition == Composition("Mg4O4")
    assert read.warnings == ("it lacks the line of element symbols; they were read as Mg O",)


@pytest.mark.parametrize("comment", ["rock salt", "MgO", "Mg", "Mg O Li", "Mg Xx", ""])
def test_a_poscar_without_elements_is_refused_with_the_remedy(tmp_path, comment) -> None:
    (tmp_path / "POSCAR").write_text(poscar(comment, "", PLACES))
    with pytest.raises(ValueError, match=r"does not say which elements its 4 \+ 4 atoms are\. Insert a line"):
        read_crystal(tmp_path / "POSCAR")


@pytest.mark.parametrize("names", ["Mg_pv O", "Mg O/79d9987ad87", "Mg_sv/a1 O_s/b2", " Mg  O"])
def test_names_of_pseudopotentials_are_elements(tmp_path, names) -> None:
    (tmp_path / "host.vasp").write_text(poscar("x", names, PLACES))
    assert read_crystal(tmp_path / "host.vasp").crystal.composition == Composition("Mg4O4")


@pytest.mark.parametrize("names", ["Mg Vac", "T1 O", "Mg Wat", "M O", "Mg OH"])
def test_a_name_that_is_no_element_is_refused(tmp_path, names) -> None:
    (tmp_path / "POSCAR").write_text(poscar("x", names, PLACES))
    unknown = next(name for name in names.split() if name not in {"Mg", "O"})
    with pytest.raises(ValueError, match=rf"line 6 names {unknown}, which is not an element"):
        read_crystal(tmp_path / "POSCAR")


@pytest.mark.parametrize(
    ("lines", "words"),
    [(PLACES[:5], "not a POSCAR"), ([*PLACES[:7], "0 0 0.01"], "0.042 Å apart"), (["a b c"] * 8, "not a POSCAR")],
)
def test_a_damaged_poscar_is_refused(tmp_path, lines, words) -> None:
    (tmp_path / "POSCAR").write_text(poscar("x", "Mg O", lines))
    with pytest.raises(ValueError, match=words):
        read_crystal(tmp_path / "POSCAR")


# --- fixed atoms --------------------------------------------------------------------------------------------------


def test_selective_dynamics_are_read() -> None:
    read = read_crystal(FILES / "POSCAR-LiCl-selective-dynamics")
    assert read.fixed is not None and read.fixed.tolist() == [False] + 7 * [True] and not read.warnings


@pytest.mark.parametrize(
    ("flags", "fixed", "partly"),
    [
        (["F F F", "T T T"], [True, False], ""),
        (["T T T", "T T T"], None, ""),
        (["F T T", "T T T"], [True, False], "(1)"),
        (["F F T", "F F T"], [True, True], "(1, 2)"),
        ([".FALSE. .FALSE. .FALSE.", ".TRUE. .TRUE. .TRUE."], [True, False], ""),
        (["f f f", "t t t"], [True, False], ""),
    ],
)
def test_flags_of_a_poscar(tmp_path, flags, fixed, partly) -> None:
    places = [f"0 0 0 {flags[0]}", f".5 .5 .5 {flags[1]}"]
    (tmp_path / "POSCAR").write_text(poscar("x", "Mg O", places, selective=True, counts="1 1"))
    read = read_crystal(tmp_path / "POSCAR")
    assert (None if read.fixed is None else read.fixed.tolist()) == fixed
    assert bool(read.warnings) == bool(partly) and partly in "".join(read.warnings)


@pytest.mark.parametrize("name", ["file.extxyz", "file.traj", "file.xyz"])
@pytest.mark.parametrize("indices", [[0], [1], [0, 1]])
def test_fixed_atoms_of_ase_are_read(tmp_path, name, indices) -> None:
    atoms = SALT.copy()
    atoms.set_constraint(FixAtoms(indices))
    ase.io.write(tmp_path / name, atoms, format="extxyz" if "xyz" in name else "traj")
    read = read_crystal(tmp_path / name)
    assert read.fixed is not None and np.flatnonzero(read.fixed).tolist() == indices and not read.warnings


def test_constraints_that_cannot_be_kept_are_said(tmp_path) -> None:
    atoms = SALT.copy()
    atoms.set_constraint([FixCartesian(0, mask=[True, False, False]), FixedPlane(1, (0, 0, 1))])
    ase.io.write(tmp_path / "file.traj", atoms)
    read = read_crystal(tmp_path / "file.traj")
    assert read.fixed is not None and read.fixed.tolist() == [True, False]
    assert read.warnings == (
        "its constraint FixedPlane is not kept",
        "the file lets atoms move along some axes only (1): they count as fixed along all three",
    )


# --- moments and frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([2.0, -2.0], [2, -2]),
        ([0.0, 0.0], None),
        ([[0, 0, 1.5], [0, 0, -1.5]], [1.5, -1.5]),
        ([[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]]),
        ([[-1, 1, 0], [1, -1, 0]], [2**0.5, -(2**0.5)]),
    ],
)
def test_initial_moments_are_kept(tmp_path, given, expected) -> None:
    atoms = SALT.copy()
    atoms.set_initial_magnetic_moments(given)
    ase.io.write(tmp_path / "file.traj", atoms)
    read = read_crystal(tmp_path / "file.traj")
    if expected is None:
        assert read.moments is None
    else:
        np.testing.assert_allclose(read.moments, expected, atol=1e-12)


def test_a_frame_that_cannot_be_read_is_named_and_the_others_are_read(tmp_path) -> None:
    molecule, dummy, fused, empty = SALT.copy(), SALT.copy(), SALT.copy(), SALT.copy()
    molecule.pbc = [True, True, False]
    dummy.numbers[1] = 0
    fused.positions[1] = fused.positions[0] + 0.1
    del empty[[0, 1]]
    ase.io.write(tmp_path / "file.traj", [SALT, molecule, dummy, fused, empty, bulk("Si")])
    found = read_files([tmp_path / "file.traj"])
    assert [(one.name, one.crystal.formula) for one in found.crystals] == [("file-1", "NaCl"), ("file-6", "Si")]
    words = ["frame 2: not periodic", "frame 3: atom 2 is X", "frame 4: atoms on top", "frame 5: it contains no atoms"]
    for one, text in zip(found.unreadable, words, strict=True):
        assert one.problem.startswith(text)
    last = read_crystal(tmp_path / "file.traj")
    assert last.crystal.formula == "Si" and last.warnings[0] == "it has 6 crystals; frame 6 was taken"


@pytest.mark.parametrize("name", ["x.cif.gz", "POSCAR.gz", "x.json", "x.xsf", "x.extxyz", "x.xyz", "x.cssr", "CONTCAR"])
def test_every_format_gives_the_same_crystal(tmp_path, name) -> None:
    structure = Structure.from_ase_atoms(SALT)
    if "xyz" in name:
        ase.io.write(tmp_path / name, SALT, format="extxyz")
    else:
        structure.to(str(tmp_path / name))
    crystal = read_crystal(tmp_path / name).crystal
    np.testing.assert_allclose(crystal.to_pymatgen().lattice.abc, structure.lattice.abc, rtol=1e-4)
    assert crystal.formula == "NaCl" and crystal.to_pymatgen().get_distance(0, 1) == pytest.approx(2.82, abs=1e-3)


def test_ions_of_one_element_in_other_formats_are_one_element(tmp_path) -> None:
    structure = Structure.from_ase_atoms(bulk("MgO", "rocksalt", a=4.2))
    structure[0] = {"Mn3+": 0.5, "Mn4+": 0.5}
    structure.to(str(tmp_path / "file.json"))
    assert read_crystal(tmp_path / "file.json").crystal.formula == "MnO"
    structure[0] = {"Mn3+": 0.5, "Mg": 0.25}
    structure.to(str(tmp_path / "file.json"))
    assert read_structure(tmp_path / "file.json").structure.composition == Composition("Mn0.5Mg0.25O")


def test_elements_that_are_none_are_refused_in_other_formats(tmp_path) -> None:
    Structure.from_ase_atoms(SALT).replace_species({"Na": "X"}).to(str(tmp_path / "file.json"))
    with pytest.raises(ValueError, match=r"atom 1 is X.*, which is not an element"):
        read_crystal(tmp_path / "file.json")


def test_a_molecule_without_a_cell_is_refused(tmp_path) -> None:
    ase.io.write(tmp_path / "file.xyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    with pytest.raises(ValueError, match="not periodic in three directions"):
        read_crystal(tmp_path / "file.xyz")
