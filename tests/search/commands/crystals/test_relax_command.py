"""`hostguide relax` and `hostguide evaluate` on files as people have them."""

from __future__ import annotations

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from model.crystals.crystal import Crystal
from model.potentials.chgnet.potential import CHGNetPotential
from model.symmetry.space_group import space_group
from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.storage.crystal_files import read_files

SALT = bulk("NaCl", "rocksalt", a=5.9)
SILICON = bulk("Si", a=5.3)


@pytest.fixture
def files(tmp_path):
    """A CIF of two crystals, a POSCAR, and two frames of extended XYZ of which the second has overlapping atoms."""
    rocksalt, diamond = (Crystal.from_ase(atoms).to_pymatgen() for atoms in (SALT, SILICON))
    (tmp_path / "two.cif").write_text(f"{CifWriter(rocksalt, symprec=0.01)}\n{CifWriter(diamond)}")
    diamond.to(str(tmp_path / "POSCAR"), fmt="poscar")
    fused = SALT.copy()
    fused.positions[1] = fused.positions[0] + 0.05
    ase.io.write(tmp_path / "frames.extxyz", [SILICON, fused])
    return tmp_path


def test_every_kind_of_file_is_read(files) -> None:
    found = read_files([files / "two.cif", files / "POSCAR", files / "frames.extxyz"])
    read = found.crystals
    assert [one.name for one in read] == ["two-1", "two-2", "POSCAR", "frames-1"]
    assert [one.crystal.formula for one in read] == ["NaCl", "Si", "Si", "Si"]
    (unreadable,) = found.unreadable
    assert unreadable.name == "frames-2"
    assert unreadable.problem.startswith("frame 2: atoms on top of each other: atom 1 (Na) and atom 2 (Cl) are 0.087 Å")
    assert read[0].crystal.volume / len(read[0].crystal) == pytest.approx(5.9**3 / 8, rel=1e-5)
    np.testing.assert_allclose(read[3].crystal.lattice, SILICON.cell.array, atol=1e-7)


def test_names_of_equal_files_in_two_folders_differ(tmp_path) -> None:
    paths = [tmp_path / folder / "POSCAR" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        ase.io.write(path, SILICON, format="vasp")
    first, second = (one.name for one in read_files(paths).crystals)
    assert first != second and "/" not in first + second


def test_relaxed_crystals_go_to_a_folder_and_a_failure_to_the_exit_code(files, call) -> None:
    out = files / "out"
    code, said, _ = call("relax", files / "two.cif", files / "frames.extxyz", "--out", out, "--keep-symmetry")
    table = pd.read_csv(out / "summary.csv").set_index("name")
    assert code == 1 and "3 converged" in said and "1 unreadable" in said
    assert sorted(path.stem for path in out.glob("*.cif")) == ["frames-1", "two-1", "two-2"]
    assert table["outcome"].to_dict() == dict.fromkeys(("frames-1", "two-1", "two-2"), "converged") | {
        "frames-2": "unreadable"
    }
    assert np.isnan(table.loc["frames-2", "energy_final"])
    relaxed = Crystal.from_pymatgen(Structure.from_file(out / "two-1.cif"))
    assert space_group(relaxed, 1e-3, -1.0).number == 225 and relaxed.volume / 4 < SALT.get_volume() * 0.98
    (again,) = CHGNetPotential().evaluate([relaxed])
    assert again.energy == pytest.approx(table.loc["two-1", "energy_final"], abs=1e-4)


def test_relaxed_crystals_go_to_one_file_with_energy_and_forces(files, call) -> None:
    out = files / "relaxed.extxyz"
    code, _, _ = call("relax", files / "POSCAR", "--out", out, "--optimizer", "fire", "--cell", "hydrostatic")
    (atoms,) = ase.io.read(out, ":")
    assert code == 0 and atoms.info["outcome"] == "converged"
    (again,) = CHGNetPotential().evaluate([Crystal.from_ase(atoms)])
    assert again.energy == pytest.approx(atoms.get_potential_energy() / 2, abs=1e-5)
    np.testing.assert_allclose(again.forces, atoms.get_forces(), atol=1e-4)


def test_under_pressure_the_enthalpy_is_given(tmp_path, call) -> None:
    """5 GPa is 5/160.2177 eV/Å³; the crystal relaxed under it has the lower enthalpy, that without the lower energy."""
    ase.io.write(tmp_path / "in.extxyz", SALT)
    found = {}
    for name, options in (("free", ()), ("pressed", ("--pressure", 5))):
        code, said, _ = call("relax", tmp_path / "in.extxyz", "--out", tmp_path / f"{name}.extxyz", *options)
        found[name] = atoms = ase.io.read(tmp_path / f"{name}.extxyz")
        assert code == 0 and ("enthalpy_final" in atoms.info) == ("┃ H " in said) == (name == "pressed")
    enthalpy = {name: atoms.get_potential_energy() + 5 / 160.2177 * atoms.cell.volume for name, atoms in found.items()}
    assert 2 * found["pressed"].info["enthalpy_final"] == pytest.approx(enthalpy["pressed"], abs=1e-5)
    assert enthalpy["pressed"] < enthalpy["free"] - 1e-3
    assert found["pressed"].get_potential_energy() > found["free"].get_potential_energy() + 1e-3
    call("relax", tmp_path / "in.extxyz", "--out", tmp_path / "folder", "--pressure", 5)
    (row,) = pd.read_csv(tmp_path / "folder" / "summary.csv").to_dict("records")
    assert row["enthalpy_final"] == pytest.approx(enthalpy["pressed"] / 2, abs=1e-5)


def test_only_the_named_element_moves(files, call) -> None:
    before = SALT.copy()
    before.positions[0] += [0.2, 0.1, 0.0]
    ase.io.write(files / "in.extxyz", before)
    code, _, _ = call("relax", files / "in.extxyz", "--free", "Na", "--out", files / "out.extxyz", "--fmax", "0.1")
    after = ase.io.read(files / "out.extxyz")
    assert code == 0
    np.testing.assert_allclose(after.cell.array, before.cell.array, atol=1e-6)
    np.testing.assert_allclose(after.positions[1], before.positions[1], atol=1e-6)
    assert np.linalg.norm(after.positions[0] - before.positions[0]) > 0.1


def test_a_run_that_is_out_of_time_says_so(files, call) -> None:
    code, said, _ = call("relax", files / "POSCAR", "--out", files / "out", "--minutes", 0)
    assert code == 1 and "not_started" in said


@pytest.mark.parametrize("ending", ["csv", "extxyz"])
def test_single_points(files, call, ending) -> None:
    out, given = files / f"points.{ending}", [files / "POSCAR", files / "two.cif"]
    code, said, _ = call("evaluate", *given, "--out", out)
    energies = [
        result.energy for result in CHGNetPotential().evaluate([one.crystal for one in read_files(given).crystals])
    ]
    if ending == "csv":
        found = pd.read_csv(out)["energy"].to_numpy()
    else:
        found = [atoms.get_potential_energy() / len(atoms) for atoms in ase.io.read(out, ":")]
    assert code == 0 and "two-2" in said
    np.testing.assert_allclose(found, energies, atol=1e-6)


def test_e_d_is_shown_and_stored(files, call) -> None:
    hull = Stability(packaged_reference(), "Na-Cl").hull_energy("NaCl")
    code, said, _ = call("evaluate", files / "two.cif", "--out", files / "points.csv")
    table = pd.read_csv(files / "points.csv").set_index("name")
    assert code == 0 and "E_d" in said and "1.00 NaCl" in said
    assert table.loc["two-1", "e_d"] == pytest.approx(table.loc["two-1", "energy"] - hull, abs=1e-6)
    code, said, _ = call("relax", files / "two.cif", "--out", files / "out.extxyz", "--fmax", 0.02)
    salt, silicon = ase.io.read(files / "out.extxyz", ":")
    assert code == 0 and "products" in said
    assert abs(salt.info["e_d"]) < 0.001 and salt.info["products"] == "1.00 NaCl"  # the ground state
    assert abs(silicon.info["e_d"]) < 0.001 and silicon.info["products"] == "1.00 Si"
    call("relax", files / "two.cif", "--out", files / "pressed", "--pressure", 1)
    pressed = pd.read_csv(files / "pressed" / "summary.csv")
    assert pressed["e_d"].isna().all() and set(pressed["e_d_missing"]) == {"phases are not known under pressure"}


def test_a_crystal_without_an_answer_is_an_exit_code(tmp_path, call) -> None:
    ase.io.write(tmp_path / "odd.extxyz", [SILICON, Atoms(numbers=[100], cell=np.eye(3) * 4, pbc=True)])
    code, said, _ = call("evaluate", tmp_path / "odd.extxyz")
    assert code == 1 and "element beyond 94" in said and "1 of 2" in said


def test_bad_input_stops_before_any_work(files, call, monkeypatch) -> None:
    for command in ("relax", "evaluate"):
        loaded = f"search.commands.crystals.{command}.load_potential"
        monkeypatch.setattr(loaded, lambda *_: pytest.fail("the potential was loaded"))
    (files / "junk.foo").write_text("hello")
    ase.io.write(files / "molecule.xyz", Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    (files / "there").mkdir()
    (files / "there" / "summary.csv").write_text("mine")
    poscar = files / "POSCAR"
    for arguments, words in (
        (
            ["relax", poscar, files / "junk.foo", files / "molecule.xyz"],
            ["junk.foo", ".extxyz", "molecule.xyz", "periodic"],
        ),
        (["relax", files / "nothere.cif"], ["nothere.cif", "no such file"]),
        (["relax", files], ["folder"]),
        (["relax", poscar, "--free", "Na"], ["Na", "POSCAR"]),
        (["relax", poscar, "--free", "Xx"], ["--free 'Xx' is not an element; use symbols such as Li"]),
        (["relax", poscar, "--fmax", 0], ["fmax", "0"]),
        (["relax", poscar, "--out", files / "there"], ["summary.csv", "--overwrite"]),
        (["relax", poscar, "--out", files / "x.pdf"], ["x.pdf", "extxyz"]),
        (["evaluate", poscar, "--out", files / "x.pdf"], ["x.pdf", ".csv"]),
        (["evaluate", poscar, "--device", "gpu"], ["gpu", "cuda"]),
    ):
        code, _, error = call(*arguments)
        assert code == 2
        assert all(word in error for word in words), error
    assert (files / "there" / "summary.csv").read_text() == "mine"
