"""A search with each potential of the catalogue, and with one that is new in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.catalog import CATALOG, PotentialEntry, load_potential
from model.potentials.energies import Energies
from model.potentials.interface import Potential
from model.thermodynamics.reference import build_reference_table
from model.thermodynamics.stability import Stability
from search.config import SearchConfig
from search.config_file import check_config, load_config
from search.planning.prepare import (
    RunMetadata,
    check_potential,
    describe_reference,
    load_reference,
    reference_kind,
    same_search,
    write_run_metadata,
)
from search.running.pipeline import load_stages, search_here
from search.storage.ranking import rank
from search.storage.results import ResultStore, load_results
from search.storage.rows import unpack_or_raise

TINY = {
    "name": "tiny",
    "seed": 3,
    "compositions": {"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}]},
    "generators": ["random", "mutation"],
    "relaxation": {"max_steps": 60},
    "policy": {"rounds": 2, "candidates_per_round": 6, "new_share": 0.7, "batch": 2},
}


def searched(config: SearchConfig, folder: Path) -> pd.DataFrame:
    reference, store = load_reference(config), ResultStore(folder)
    for _ in search_here(config, reference, store, load_stages(config, reference)):
        pass
    return load_results(folder, structures=False)


def assert_told_by(frame: pd.DataFrame, config: SearchConfig) -> None:
    """Every energy is the potential's, every E_d is against its own reference, and the columns say so."""
    name, reference = config.models.potential, load_reference(config)
    assert set(frame["potential"]) == {reference.potential} == {name}
    assert set(frame["reference"]) == {describe_reference(reference)}
    relaxed = frame[frame["e_d"].notna()]
    assert len(relaxed) >= 3
    again = load_potential(name).evaluate([unpack_or_raise(value) for value in relaxed["final"]])
    np.testing.assert_allclose([one.energy for one in again], relaxed["energy"], atol=1e-4)


def quick_ones() -> list:
    """All potentials; those that take longer than a few seconds are slow."""
    slow = [name for name in CATALOG if name.startswith("7net") and name != "7net-0"]
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in CATALOG]


@pytest.mark.parametrize("name", quick_ones())
def test_a_potential_searches_with_its_own_reference(name, tmp_path) -> None:
    if name.startswith("7net"):
        pytest.importorskip("sevenn")
    config = check_config(TINY | {"models": {"potential": name}}, source="test")
    assert_told_by(searched(config, tmp_path), config)


def test_the_r2scan_table_says_what_it_lacks() -> None:
    """It covers fewer elements than that of chgnet-0.3.0."""
    content = TINY | {"compositions": {"system": "Li-Au", "max_atoms": 4}}
    load_reference(check_config(content, source="test"))
    config = check_config(content | {"models": {"potential": "chgnet-r2scan"}}, source="test")
    with pytest.raises(ValueError, match=r"of chgnet-r2scan has no elemental phase of Au: use a reference that"):
        load_reference(config)


def test_energies_of_another_level_are_refused(tmp_path) -> None:
    """The 0.3.0 table with the r2SCAN potential."""
    reference = {"kind": "table", "path": str(CATALOG["chgnet-0.3.0"].reference)}
    config = check_config(TINY | {"models": {"potential": "chgnet-r2scan"}, "reference": reference}, source="test")
    with pytest.raises(
        ValueError,
        match=r"'chgnet-0\.3\.0' cannot be compared with chgnet-r2scan; use .* with chgnet-r2scan or r2SCAN$",
    ):
        load_reference(config)


# --- any ASE calculator, by configuration alone ---------------------------------------------------------------------

ALLOY = TINY | {
    "name": "alloy",
    "compositions": {"cells": [{"Cu": 1, "Au": 1}, {"Cu": 3, "Au": 1}]},
    "models": {"potential": {"calculator": "ase.calculators.emt.EMT", "energies": "own", "name": "emt"}},
    "resources": {"relax_actors": 1},
}


def test_a_calculator_searches_against_its_own_hull(tmp_path) -> None:
    config = check_config(ALLOY, source="test")
    check_potential(config)
    reference = load_reference(config, tmp_path)
    assert (reference.potential, reference_kind(config)) == ("emt", "library")
    same_search(tmp_path, config, reference)
    write_run_metadata(tmp_path, config, reference)
    for _ in search_here(config, reference, ResultStore(tmp_path), load_stages(config, reference)):
        pass
    frame = load_results(tmp_path)
    assert set(frame["potential"]) == {"emt"}
    assert set(frame["reference"]) == {describe_reference(reference)}
    relaxed = frame[frame["e_d"].notna()]
    assert len(relaxed) >= 3
    atoms = relaxed["structure"].iloc[0].to_ase_atoms()
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() / len(atoms)
    assert relaxed["energy"].iloc[0] == pytest.approx(energy, abs=1e-6)
    hull = Stability(reference, ["Au", "Cu"]).hull_energy(relaxed["formula"].iloc[0])
    assert relaxed["e_d"].iloc[0] == pytest.approx(energy - hull, abs=1e-6)


def test_the_run_keeps_the_phases_that_its_potential_relaxed(tmp_path, monkeypatch) -> None:
    config = check_config(ALLOY, source="test")
    before = load_reference(config, tmp_path)
    write_run_metadata(tmp_path, config, before)
    again = load_config(tmp_path / "config.yaml")
    assert again.models == config.models
    monkeypatch.setattr("search.planning.prepare.judge_hull", None)  # nothing is computed again
    kept = load_reference(again, tmp_path)
    assert describe_reference(kept) == describe_reference(before)
    same_search(tmp_path, again, kept)
    moved = replace(kept, version="of another library")
    with pytest.raises(ValueError, match="reference: was"):
        same_search(tmp_path, again, moved)


def test_what_a_calculator_cannot_do_is_told_before_any_work() -> None:
    config = check_config(ALLOY | {"compositions": {"cells": [{"Li": 1, "Cu": 1}]}}, source="test")
    with pytest.raises(ValueError, match=r"emt cannot compute Li \(.*leave the element out"):
        check_potential(config)


@pytest.mark.slow
def test_a_calculator_reaches_the_actors(call, tmp_path) -> None:
    (tmp_path / "alloy.yaml").write_text(yaml.safe_dump(ALLOY))
    code, out, err = call("search", tmp_path / "alloy.yaml", "--run", tmp_path / "run")
    assert code == 0, err
    assert "Lowest decomposition energies (emt)" in out
    code, out, err = call("report", tmp_path / "run")
    assert code == 0, err


def test_energies_of_a_calculator_on_another_scale_are_refused(tmp_path) -> None:
    reference = {"kind": "table", "path": str(CATALOG["chgnet-0.3.0"].reference)}
    config = check_config(ALLOY | {"reference": reference}, source="test")
    with pytest.raises(ValueError, match=r"'chgnet-0\.3\.0' cannot be compared with emt; use .* computed with emt$"):
        load_reference(config)


@pytest.mark.parametrize("command", ["evaluate", "relax"])
def test_commands_take_a_calculator(call, tmp_path, command) -> None:
    bulk("Cu", "fcc", a=3.7).write(tmp_path / "Cu.cif")
    (tmp_path / "emt.yaml").write_text("calculator: ase.calculators.emt.EMT\nenergies: own\n")
    out = ["--out", tmp_path / ("out.csv" if command == "evaluate" else "out")]
    for potential in (tmp_path / "emt.yaml", "{calculator: ase.calculators.emt.EMT, energies: own}"):
        code, said, err = call(command, tmp_path / "Cu.cif", "--potential", potential, *out, "--overwrite")
        assert code == 0, err
        assert "no table" in said and "EMT()" in said
    code, _, err = call(command, tmp_path / "Cu.cif", "--potential", "{calculator: emt}", *out)
    assert code == 2 and "must be an import path" in err and "docs/judges.md" in err


# --- a new potential is one entry -----------------------------------------------------------------------------------

NEW = "lennard-jones"


def lennard_jones(name: str, device: str) -> Potential:
    """On a CPU only, as any ASE calculator."""
    assert device == "cpu"
    return ASEPotential(LennardJones(sigma=2.4, epsilon=0.3, rc=6.0, ro=4.5, smooth=True), name=name)


@pytest.fixture
def new_entry(tmp_path, monkeypatch) -> PotentialEntry:
    """The entry, and a table of two phases by the same potential."""
    phases = {"Li": Crystal.from_ase(bulk("Li", "fcc", a=3.8)), "Si": Crystal.from_ase(bulk("Si", "fcc", a=3.8))}
    energies = [one.energy for one in lennard_jones(NEW, "cpu").evaluate(list(phases.values()))]
    table = pd.DataFrame(
        {
            "material_id": list(phases),
            "formula": list(phases),
            "energy_per_atom": energies,
            "e_above_hull": 0.0,
            "n_atoms": 1,
            "cell": [[2.7, 2.7, 2.7, 60, 60, 60]] * 2,
        }
    )
    table.to_parquet(tmp_path / "phases.parquet")
    about = {"name": "two phases", "potential": NEW, "version": "1", "source": "this test"}
    path = build_reference_table(
        tmp_path / "phases.parquet",
        tmp_path / "reference.parquet",
        structures_parquet=tmp_path / "phases.parquet",
        **about,
    )
    entry = PotentialEntry(
        name=NEW,
        construct=lennard_jones,
        energies=Energies.OWN,
        package="ase",
        reference=path,
    )
    monkeypatch.setitem(CATALOG, NEW, entry)
    return entry


def test_a_new_potential_is_one_entry(new_entry, tmp_path) -> None:
    config = check_config(TINY | {"models": {"potential": NEW}}, source="test")
    frame = searched(config, tmp_path / "run")
    assert_told_by(frame, config)
    assert set(frame["reference"]) == {"two phases (lennard-jones, 1)"}
    assert RunMetadata.of(config, load_reference(config)).packages["ase"]
    phases = load_reference(config).phases["energy_per_atom"]
    assert phases.nunique() == 1  # Li and Si are the same to it, so its hull is flat
    best = rank(frame, top=1).iloc[0]
    assert best["e_d"] == pytest.approx(best["energy"] - phases.iloc[0])


@pytest.mark.usefixtures("new_entry")
def test_the_commands_know_a_new_potential(call, tmp_path) -> None:
    bulk("Li", "fcc", a=3.8).write(tmp_path / "Li.cif")
    code, out, _ = call("evaluate", tmp_path / "Li.cif", "--potential", NEW)
    assert code == 0 and "Li" in out
    code, out, _ = call("relax", tmp_path / "Li.cif", "--potential", NEW, "--out", tmp_path / "relaxed")
    assert code == 0 and f"{NEW}, lbfgs" in out
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"models": {"potential": NEW}}))
    code, out, _ = call("validate", tmp_path / "tiny.yaml")
    assert code == 0 and "reference: two phases (lennard-jones, 1)" in out


@pytest.mark.usefixtures("new_entry")
def test_it_compares_with_itself_only() -> None:
    reference = {"kind": "table", "path": str(CATALOG["chgnet-0.3.0"].reference)}
    config = check_config(TINY | {"models": {"potential": NEW}, "reference": reference}, source="test")
    with pytest.raises(ValueError, match=r"'chgnet-0\.3\.0' cannot be compared .* computed with lennard-jones$"):
        load_reference(config)


@pytest.mark.parametrize("command", ["relax", "evaluate", "reference relax"])
def test_an_unknown_name_is_refused_before_anything_is_read(command, call, tmp_path) -> None:
    options = ["--structures", tmp_path / "none"] if command == "reference relax" else [tmp_path / "none.cif"]
    code, _, err = call(*command.split(), *options, "--out", tmp_path / "out", "--potential", "mace")
    assert code == 2
    assert "unknown potential 'mace'; choose from chgnet-0.3.0, chgnet-r2scan" in err
    assert not (tmp_path / "out").exists()
