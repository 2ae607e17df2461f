"""VASP inputs of a run's candidates and of users' files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import SETTINGS, Lattice, Structure
from pymatgen.io.vasp import Incar, Kpoints, Poscar

from model.crystals.crystal import Crystal
from model.symmetry.space_group import space_group
from search.dft.inputs import LINK, MANIFEST, job_of_file, jobs_of_run, write_inputs

USERS = Path(__file__).parents[2] / "data" / "users_files"
quiet = pytest.mark.filterwarnings("ignore::UserWarning")  # pymatgen has much to say of inputs and of spglib


@quiet
@pytest.mark.usefixtures("no_potcars")
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", ["mp-gga", "mp-r2scan"])
def test_inputs_are_those_of_the_materials_project(run, tmp_path, kind, static):
    (job,) = jobs_of_run(run, top=1)
    write_inputs([job], tmp_path / "out", kind=kind, static=static)
    folder = tmp_path / "out" / job.name
    incar = Incar.from_file(folder / "INCAR")
    assert incar["ENCUT"] == {"mp-gga": 520, "mp-r2scan": 680}[kind]
    assert incar["NSW"] == (0 if static else 99)
    if kind == "mp-gga":
        assert incar["LDAUU"] == [0, 3.32, 0]  # Li, Co, O: the U of the Materials Project
        assert Kpoints.from_file(folder / "KPOINTS").kpts
    else:
        assert str(incar["METAGGA"]).lower() == "r2scan"
        assert not (folder / "KPOINTS").exists()
        assert incar["KSPACING"] == 0.22
    assert (folder / "POTCAR.spec").read_text().split() == ["Li_sv", "Co", "O"]
    assert not (folder / "POTCAR").exists()


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_the_structure_is_the_candidate_as_stored(run, tmp_path, cobaltate):
    best = min((row for row in cobaltate["rows"] if row.status == "relaxed"), key=lambda row: row.e_d)
    (job,) = jobs_of_run(run, top=1)
    write_inputs([job], tmp_path / "out", kind="mp-gga")
    made = Poscar.from_file(tmp_path / "out" / job.name / "POSCAR").structure
    stored = best.final.crystal.to_pymatgen().get_sorted_structure()
    np.testing.assert_allclose(made.lattice.matrix, stored.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(made.frac_coords, stored.frac_coords, atol=1e-12)
    assert job.about["space_group"] == best.space_group


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_if_asked_for_the_structure_is_the_candidate_on_its_space_group(run, tmp_path, cobaltate):
    best = min((row for row in cobaltate["rows"] if row.status == "relaxed"), key=lambda row: row.e_d)
    (job,) = jobs_of_run(run, top=1, symmetrise=True)
    write_inputs([job], tmp_path / "out", kind="mp-gga")
    made = Crystal.from_pymatgen(Poscar.from_file(tmp_path / "out" / job.name / "POSCAR").structure)
    assert made.composition.reduced_formula == best.formula
    assert space_group(made, 1e-4, -1.0).symbol == best.space_group
    assert made.volume / len(made) == pytest.approx(best.volume_per_atom, rel=1e-3)
    assert job.name == (
        f"{best.formula}_{best.space_group.replace('/', '_')}_{1e3 * best.e_d:+.0f}meV_{best.candidate}"
    )


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_folders_and_manifest_name_the_candidate(run, tmp_path):
    jobs = jobs_of_run(run, top=5)
    write_inputs(jobs, tmp_path / "out", kind="mp-gga")
    manifest = pd.read_csv(tmp_path / "out" / MANIFEST)
    assert len(manifest) == len(jobs)
    for row in manifest.itertuples():
        link = json.loads((tmp_path / "out" / row.folder / LINK).read_text())
        assert link["candidate"] == row.candidate
        assert link["e_d"] == pytest.approx(row.e_d)


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_inputs_are_never_written_over_those_of_another_crystal(run, tmp_path):
    (job,) = jobs_of_run(run, top=1)
    out = tmp_path / "out"
    write_inputs([job], out, kind="mp-gga")
    write_inputs([job], out, kind="mp-r2scan")  # the same crystal again
    other = type(job)(job.name, job.crystal.replace(lattice=job.crystal.lattice * 1.01), job.about)
    with pytest.raises(ValueError, match="contains inputs of another crystal"):
        write_inputs([other], out, kind="mp-gga")
    (out / "foreign").mkdir()
    with pytest.raises(ValueError, match="was not written by hostguide"):
        write_inputs([type(job)("foreign", job.crystal, job.about)], out, kind="mp-gga")
    with pytest.raises(ValueError, match=f"two crystals would use the folder {job.name[:10]}"):
        write_inputs([job, job], tmp_path / "new", kind="mp-gga")
    assert not (tmp_path / "new").exists()


def test_candidates_can_be_chosen(run, cobaltate):
    relaxed = sorted(row.e_d for row in cobaltate["rows"] if row.status == "relaxed")
    with pytest.raises(ValueError, match="no relaxed crystal of"):
        jobs_of_run(run, top=5, e_d_below=relaxed[0])
    assert len(jobs_of_run(run, top=5, e_d_below=relaxed[0] + 1e-9)) == 1
    unconverged = next(row.candidate for row in cobaltate["rows"] if row.status == "unconverged")
    (job,) = jobs_of_run(run, top=5, candidates=[unconverged])
    assert job.about["candidate"] == unconverged
    with pytest.raises(ValueError, match="no relaxed candidate nobody"):
        jobs_of_run(run, top=5, candidates=["nobody"])


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_a_contcar_keeps_its_link_to_the_candidate(run, tmp_path):
    (job,) = jobs_of_run(run, top=1)
    write_inputs([job], tmp_path / "relax", kind="mp-gga")
    folder = tmp_path / "relax" / job.name
    shutil.copy(folder / "POSCAR", folder / "CONTCAR")
    again = job_of_file(folder / "CONTCAR")
    assert again.name == job.name
    assert again.about["candidate"] == job.about["candidate"]
    write_inputs([again], tmp_path / "static", kind="mp-gga", static=True)
    assert Incar.from_file(tmp_path / "static" / job.name / "INCAR")["NSW"] == 0


def inputs_of(path, out, **options):
    """Inputs of a file: INCAR and the structure of the POSCAR."""
    job = job_of_file(path)
    write_inputs([job], out, kind="mp-gga", **options)
    return Incar.from_file(out / job.name / "INCAR"), Structure.from_file(out / job.name / "POSCAR")


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_the_moments_and_the_cell_of_an_antiferromagnet_are_kept(tmp_path):
    given = Structure.from_file(USERS / "NiO-antiferromagnetic.mcif", primitive=False)
    incar, made = inputs_of(USERS / "NiO-antiferromagnetic.mcif", tmp_path / "out")
    assert incar["MAGMOM"] == [2, 2, -2, -2, 0, 0, 0, 0]
    np.testing.assert_allclose(made.lattice.abc, given.lattice.abc, atol=1e-6)
    np.testing.assert_allclose(made.frac_coords, given.frac_coords, atol=1e-6)
    job = job_of_file(USERS / "NiO-antiferromagnetic.mcif")
    folder = tmp_path / "out" / job.name
    shutil.copy(folder / "POSCAR", folder / "CONTCAR")  # which has no moments
    again, _ = inputs_of(folder / "CONTCAR", tmp_path / "static", static=True)
    assert again["MAGMOM"] == incar["MAGMOM"]
    with pytest.raises(ValueError, match="--symmetrise would lose its magnetic moments"):
        job_of_file(USERS / "NiO-antiferromagnetic.mcif", symmetrise=True)


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_moments_follow_their_atoms_when_these_are_sorted(tmp_path):
    """pymatgen sorts atoms by electronegativity, Fe before O."""
    atoms = Structure(
        Lattice.tetragonal(4.3, 8.6), ["O", "Fe", "O", "Fe"], [[0, 0, 0.25], [0, 0, 0], [0, 0, 0.75], [0, 0, 0.5]]
    ).to_ase_atoms()
    atoms.set_initial_magnetic_moments([0.1, 4, 0.2, -4])
    atoms.write(tmp_path / "FeO.extxyz")
    incar, made = inputs_of(tmp_path / "FeO.extxyz", tmp_path / "out")
    assert [site.specie.symbol for site in made] == ["Fe", "Fe", "O", "O"]
    assert incar["MAGMOM"] == [4, -4, 0.1, 0.2]


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_displacements_of_a_file_are_kept_unless_symmetry_is_asked_for(tmp_path):
    given = Structure.from_file(USERS / "Si_displaced.vasp")
    _, made = inputs_of(USERS / "Si_displaced.vasp", tmp_path / "out", static=True)
    np.testing.assert_allclose(made.lattice.matrix, given.lattice.matrix, atol=1e-12)
    np.testing.assert_allclose(made.frac_coords, given.frac_coords, atol=1e-12)
    symmetric = job_of_file(USERS / "Si_displaced.vasp", symmetrise=True)
    assert len(symmetric.crystal) == 2 and symmetric.about["space_group"] == "Fd-3m"
    assert job_of_file(USERS / "Si_displaced.vasp").about["space_group"] == "Cmm2"


@quiet
@pytest.mark.usefixtures("no_potcars")
@pytest.mark.parametrize("variation", range(5))
def test_any_cell_is_written_as_given(tmp_path, variation):
    """Supercells, strains, origins and orders of atoms that symmetrising would lose."""
    rng = np.random.default_rng(variation)
    given = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    given = given.make_supercell([[1, 0, 0], [0, 1, 0], [variation % 2, 0, 1 + variation % 2]], in_place=False)
    given.apply_strain(rng.uniform(-0.01, 0.01, 3))
    given.translate_sites(range(len(given)), rng.random(3))
    given.perturb(0.02)
    Poscar(given).write_file(tmp_path / "POSCAR")
    _, made = inputs_of(tmp_path / "POSCAR", tmp_path / "out")
    np.testing.assert_allclose(made.lattice.matrix, given.lattice.matrix, atol=1e-9)
    np.testing.assert_allclose(made.frac_coords, given.frac_coords, atol=1e-9)


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_fixed_atoms_stay_fixed(tmp_path):
    given = Structure.from_file(USERS / "Si_displaced.vasp")
    free = [[True] * 3] * 3 + [[False] * 3] * 5
    Poscar(given, selective_dynamics=free).write_file(tmp_path / "POSCAR")
    job = job_of_file(tmp_path / "POSCAR")
    write_inputs([job], tmp_path / "out", kind="mp-gga")
    made = Poscar.from_file(tmp_path / "out" / job.name / "POSCAR")
    assert np.array(made.selective_dynamics).tolist() == free


def test_moments_that_are_not_collinear_are_refused(tmp_path):
    atoms = Structure.from_file(USERS / "Si_displaced.vasp").to_ase_atoms()
    atoms.set_initial_magnetic_moments(np.eye(3)[np.arange(8) % 3])
    atoms.write(tmp_path / "tilted.traj")
    with pytest.raises(ValueError, match="moments are not collinear"):
        job_of_file(tmp_path / "tilted.traj")


@quiet
@pytest.mark.usefixtures("no_potcars")
def test_two_magnetic_orders_of_a_crystal_do_not_share_a_folder(tmp_path):
    job = job_of_file(USERS / "NiO-antiferromagnetic.mcif")
    write_inputs([job], tmp_path / "out", kind="mp-gga")
    with pytest.raises(ValueError, match="contains inputs of another crystal"):
        write_inputs([replace(job, moments=np.abs(job.moments))], tmp_path / "out", kind="mp-gga")


@quiet
def test_potcars_of_the_user_are_used_and_missed(run, tmp_path, monkeypatch):
    store = tmp_path / "potcars"
    monkeypatch.setitem(SETTINGS, "PMG_VASP_PSP_DIR", None)
    monkeypatch.setenv("PMG_VASP_PSP_DIR", str(store))
    (job,) = jobs_of_run(run, top=1)
    store.mkdir()
    with pytest.raises(ValueError, match=r"PMG_VASP_PSP_DIR.* lacks a POTCAR of LiCoO2.*--potcars"):
        write_inputs([job], tmp_path / "out", kind="mp-gga")
    assert not (tmp_path / "out").exists()
    for symbol in ("Li_sv", "Co", "O"):
        _pretend_potcar(store / "POT_GGA_PAW_PBE" / f"POTCAR.{symbol}", symbol)
    write_inputs([job], tmp_path / "out", kind="mp-gga")
    text = (tmp_path / "out" / job.name / "POTCAR").read_text()
    assert [line.split()[3] for line in text.splitlines() if "TITEL" in line] == ["Li_sv", "Co", "O"]


def _pretend_potcar(path: Path, symbol: str) -> None:
    """The head of a POTCAR, without a pseudopotential in it."""
    element = symbol.split("_")[0]
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"  PAW_PBE {symbol} 01Jan2001\n   1.00000000000000\n parameters from PSCTR are:\n   VRHFIN ={element}: s\n"
        f"   LEXCH  = PE\n   EATOM  =     1.0000 eV,    0.0735 Ry\n\n   TITEL  = PAW_PBE {symbol} 01Jan2001\n"
        "   POMASS =    1.000; ZVAL   =    1.000    mass and valenz\n   ENMAX  =  100.000; ENMIN  =  100.000 eV\n"
        "END of PSCTR-controll parameters\n  1.0 2.0 3.0\n End of Dataset\n"
    )
