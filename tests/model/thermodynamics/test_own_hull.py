"""Hulls made on the spot, with the effective-medium potential of ASE, which knows copper and gold."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from model.crystals.crystal import Crystal
from model.library.phases import PhaseLibrary
from model.potentials.ase import ASEPotential
from model.potentials.calculators import CalculatorSettings
from model.potentials.catalog import load_potential
from model.relaxation.relax import RelaxSettings, relax
from model.thermodynamics.judge import judge, own_reference
from model.thermodynamics.own_hull import REBUILT, HullSettings, judge_hull, known_phases, missing_phases
from model.thermodynamics.phase_cache import VARIABLE, PhaseCache, cache_folder
from model.thermodynamics.reference import load_reference_table, packaged_reference, reference_bytes
from model.thermodynamics.stability import Stability

EMT = CalculatorSettings(calculator="ase.calculators.emt.EMT", energies="own")
SYSTEM = ("Au", "Cu")


class Counting(ASEPotential):
    """Counts the crystals that it evaluates; fails after ``limit``."""

    def __init__(self, limit: float = np.inf) -> None:
        inner = load_potential(EMT)
        super().__init__(inner.calculator, name=inner.name, version=inner.version)
        self.count, self.limit = 0, limit

    def compute(self, batch, symmetry=None):
        self.count += len(batch)
        if self.count > self.limit:
            raise KeyboardInterrupt
        return super().compute(batch, symmetry)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def hull(folder):
    return judge_hull(SYSTEM, Counting(), folder=folder)


def test_it_is_the_hull_of_pymatgen_for_the_same_entries(hull) -> None:
    assert set(hull.phases["material_id"]) == {phase.material_id for phase in known_phases(SYSTEM)}
    entries = [
        PDEntry(Composition(row.formula), row.energy_per_atom * Composition(row.formula).num_atoms)
        for row in hull.phases.itertuples()
    ]
    diagram, own = PhaseDiagram(entries), Stability(hull, SYSTEM)
    for formula in ("Cu", "CuAu", "Cu3Au", "CuAu3", "Cu5Au2", "CuAu7"):
        composition = Composition(formula)
        assert own.hull_energy(formula) == pytest.approx(diagram.get_hull_energy_per_atom(composition), abs=1e-9)


def test_what_could_matter_is_relaxed_and_the_rest_lies_too_high(hull) -> None:
    own, settings = Stability(hull, SYSTEM), HullSettings()
    above = [own.decomposition(row.formula, row.energy_per_atom).e_d for row in hull.phases.itertuples()]
    relaxed = hull.phases["relaxed"].to_numpy()
    assert min(above) == pytest.approx(0, abs=1e-9)
    assert relaxed[np.array(above) < 1e-6].all() and relaxed.sum() > 3
    assert (np.array(above)[~relaxed] >= settings.gain).all()


def test_an_energy_is_that_of_the_relaxed_crystal(hull) -> None:
    (phase,) = (one for one in known_phases(SYSTEM) if one.formula == "Cu3Au" and one.n_atoms == 4)
    (alone,) = relax([phase.crystal], load_potential(EMT), HullSettings().relaxation)
    row = hull.phases.set_index("material_id").loc[phase.material_id]
    assert row["relaxed"] and row["energy_per_atom"] == pytest.approx(alone.energy_final, abs=1e-6)
    assert row["volume_per_atom"] == pytest.approx(alone.final.volume / 4, rel=1e-4)


def test_nothing_is_computed_twice(hull, folder) -> None:
    again = Counting()
    assert judge_hull(SYSTEM, again, folder=folder).version == hull.version
    assert again.count == 0
    judge_hull(["Cu"], again, folder=folder)  # a part of the system
    assert again.count == 0


def test_an_interrupted_hull_goes_on(hull, tmp_path) -> None:
    whole = Counting()
    judge_hull(SYSTEM, whole, folder=tmp_path / "whole")
    first = Counting(limit=whole.count // 2)
    with pytest.raises(KeyboardInterrupt):
        judge_hull(SYSTEM, first, folder=tmp_path)
    second = Counting()
    assert judge_hull(SYSTEM, second, folder=tmp_path).version == hull.version
    assert 0 < second.count < whole.count


def test_two_at_once_agree(hull, tmp_path) -> None:
    with ThreadPoolExecutor(2) as both:
        made = list(both.map(lambda _: judge_hull(SYSTEM, load_potential(EMT), folder=tmp_path), range(2)))
    assert {one.version for one in made} == {hull.version}
    assert not list(tmp_path.rglob("_tmp-*"))


def test_a_damaged_file_is_computed_again(hull, folder) -> None:
    victim = next(path for path in folder.rglob("mp-*.json"))
    victim.write_text(victim.read_text()[:20])
    again = Counting()
    assert judge_hull(SYSTEM, again, folder=folder).version == hull.version
    assert again.count > 0
    assert json.loads(victim.read_text())["material_id"] == victim.stem


def test_other_potentials_versions_and_settings_have_folders_of_their_own(tmp_path) -> None:
    potential, relaxation = load_potential(EMT), HullSettings().relaxation
    folders = {PhaseCache(potential, relaxation, tmp_path).folder}
    folders.add(PhaseCache(potential, RelaxSettings(fmax=0.02), tmp_path).folder)
    potential.version = "another"
    folders.add(PhaseCache(potential, relaxation, tmp_path).folder)
    assert len(folders) == 3


def test_the_user_chooses_the_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv(VARIABLE)
    assert cache_folder().name == "hostguide"


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"name another folder with {VARIABLE}"):
        judge_hull(["Cu"], load_potential(EMT), folder=tmp_path / "file")


def test_an_element_that_the_potential_cannot_compute_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"EMT\(\) cannot compute Li \(NotImplementedError.*: choose another"):
        judge_hull(["Li", "Cu"], load_potential(EMT), folder=tmp_path)


def test_it_can_be_shared_as_a_table(hull, tmp_path) -> None:
    (tmp_path / "hull.parquet").write_bytes(reference_bytes(hull))
    again = load_reference_table(tmp_path / "hull.parquet")
    assert (again.name, again.potential, again.version) == (hull.name, hull.potential, hull.version)
    assert again.phases.equals(hull.phases)


def test_the_holes_of_the_library_are_known() -> None:
    for system in ("Li-Si", "Na-Ge", "Li-Sb", "Ca-Ge", "Li-P-S"):
        assert missing_phases(system.split("-")) == []


def test_rebuilt_phases_have_the_energies_of_the_table() -> None:
    """CHGNet's energy of each relaxed crystal is that of the phase in the packaged table, a single point or lower."""
    table = packaged_reference().phases.set_index("material_id")["energy_per_atom"]
    phases = [*PhaseLibrary(REBUILT).find("CaGe2"), *PhaseLibrary(REBUILT).find("Li3P")]
    potential = load_potential("chgnet-0.3.0")
    for phase, result in zip(phases, potential.evaluate([phase.crystal for phase in phases]), strict=True):
        assert -0.025 < result.energy - table[phase.material_id] < 0.011, phase.formula


# --- the judge ------------------------------------------------------------------------------------------------------


def test_a_judge_relaxes_and_measures_against_its_own_hull(hull) -> None:
    phases = {phase.formula: phase.crystal for phase in known_phases(SYSTEM)}
    stretched = phases["Cu3Au"].replace(lattice=1.03 * phases["Cu3Au"].lattice)
    unlike = Crystal(phases["Cu3Au"].lattice, phases["Cu3Au"].fractional, phases["Cu3Au"].numbers[::-1])
    known, other = judge([stretched, unlike], load_potential(EMT), Stability(hull, SYSTEM))
    assert known.relaxation.converged and known.is_stable
    assert known.e_d == pytest.approx(0, abs=1e-4)
    assert known.products == {"Cu3Au": 1.0}
    expected = other.energy - Stability(hull, SYSTEM).hull_energy(unlike.formula)
    assert other.e_d == pytest.approx(expected, abs=1e-9)


def test_a_judge_has_no_use_for_the_hull_of_another(hull) -> None:
    with pytest.raises(ValueError, match=r"energies of chgnet-0\.3\.0 cannot be compared with a hull of EMT\(\)"):
        judge([], load_potential("chgnet-0.3.0"), Stability(hull, SYSTEM))


def test_a_packaged_table_is_used_if_it_is_relaxed() -> None:
    assert own_reference(["Li", "Si"], load_potential("chgnet-0.3.0")).name == "Materials Project phases"
