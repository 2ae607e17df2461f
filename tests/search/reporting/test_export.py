"""Every export format, read back by the library that others would read it with."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.db import connect
from ase.io import read
from optimade.models import StructureResponseMany
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.optimade import OptimadeStructureAdapter
from pymatgen.io.res import AirssProvider

from search.reporting.export import FORMATS, export
from search.storage.ranking import rank
from search.storage.results import ResultStore, load_results
from search.storage.rows import StoredCrystal


@pytest.fixture
def best(tmp_path, cobaltate, licoo2, lisi):
    """Two ranked crystals, the second with no space group."""

    def row(name, crystal, **columns):
        own = {"candidate": name, "formula": crystal.formula, "n_atoms": len(crystal)}
        common = {"energy": -5.25, "pressure": 0.5, "frameworks": []}
        return replace(cobaltate["rows"][0], **own, **common, **columns, final=StoredCrystal.of(crystal))

    rows = [
        row("one", licoo2, e_d=0.01, space_group="R-3m", space_group_number=166),
        row("two", lisi, e_d=0.02, space_group=None, space_group_number=None),
    ]
    ResultStore(tmp_path).append("task", rows)
    return rank(load_results(tmp_path, structures=False), top=10)


def read_back(kind, paths):
    """[(structure, energy in eV or None)] in the order of export."""
    if kind in ("cif", "poscar"):
        return [(Structure.from_file(path), None) for path in paths]
    if kind == "res":
        entries = [AirssProvider.from_file(str(path)) for path in paths]
        return [(one.structure, one.energy) for one in entries]
    if kind == "optimade-json":
        data = json.loads(paths[0].read_text())["data"]
        energies = [resource["attributes"]["_hostguide_energy_per_atom"] for resource in data]
        structures = [OptimadeStructureAdapter.get_structure(resource) for resource in data]
        return [(one, energy * len(one)) for one, energy in zip(structures, energies, strict=True)]
    every = read(paths[0], ":") if kind == "extxyz" else [row.toatoms() for row in connect(paths[0]).select()]
    return [(AseAtomsAdaptor.get_structure(atoms), atoms.get_potential_energy()) for atoms in every]


@pytest.mark.parametrize("kind", FORMATS)
def test_crystals_come_back(kind, best, tmp_path, licoo2, lisi):
    found = read_back(kind, export(best, kind, tmp_path / "out"))
    assert len(found) == 2
    for (structure, energy), crystal in zip(found, (licoo2, lisi), strict=True):
        assert structure.composition.reduced_formula == crystal.formula
        way = StructureMatcher(primitive_cell=True).get_rms_dist(structure, crystal.to_pymatgen())
        assert way is not None and way[1] < 1e-3
        if energy is not None:
            np.testing.assert_allclose(energy, -5.25 * len(crystal), rtol=1e-6)


def test_names_and_facts_tell_where_a_crystal_came_from(best, tmp_path):
    names = [path.name for path in export(best, "cif", tmp_path)]
    assert names == ["LiCoO2_R-3m_+10meV_one.cif", "LiSi_P1_+20meV_two.cif"]
    first = read(export(best, "extxyz", tmp_path)[0], 0)
    assert first.info["candidate"] == "one" and first.info["e_d"] == 0.01
    row = next(connect(export(best, "ase-db", tmp_path)[0]).select(candidate="two"))
    assert row.reduced_formula == "LiSi" and "space_group" not in row


def test_an_optimade_file_is_the_valid_answer_of_a_server(best, tmp_path, licoo2):
    (path,) = export(best, "optimade-json", tmp_path)
    answer = StructureResponseMany.model_validate_json(path.read_text())
    assert answer.meta.provider.prefix == "hostguide"
    assert answer.meta.data_returned == len(answer.data) == 2
    first, second = answer.data
    assert (first.id, second.id) == ("one", "two")
    assert first.attributes.chemical_formula_reduced == "CoLiO2"
    np.testing.assert_allclose(first.attributes.cartesian_site_positions, licoo2.to_pymatgen().cart_coords, atol=1e-9)
    ours = {key: value for key, value in first.attributes.model_extra.items() if key.startswith("_hostguide_")}
    assert ours["_hostguide_energy_per_atom"] == -5.25 and ours["_hostguide_e_d"] == 0.01
    assert ours["_hostguide_space_group"] == "R-3m"
    assert "_hostguide_space_group" not in second.attributes.model_extra


def test_what_cannot_be_exported_is_named(best, tmp_path):
    with pytest.raises(ValueError, match=r"--format must be one of cif, .* got 'xyz'"):
        export(best, "xyz", tmp_path)
    with pytest.raises(ValueError, match="raise --e-d-below"):
        export(best[best["e_d"] < 0], "cif", tmp_path)
