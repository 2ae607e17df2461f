import gzip
import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.entries import ComputedEntry, ComputedStructureEntry

from model.potentials.catalog import CATALOG, DEFAULT
from model.thermodynamics.entries import frame_of_entries, load_entries, load_materials_project
from model.thermodynamics.reference import (
    Reference,
    build_reference_table,
    load_reference_table,
    packaged_reference,
    volume_per_atom,
)
from model.thermodynamics.stability import Stability
from tests.support.data import ENERGIES, PHASES, WHOLE_ENERGIES, needs_whole

ENTRIES = [
    ComputedEntry("Li2", -4.0, correction=0.2, entry_id="a"),
    ComputedEntry("Si", -5.0, entry_id="b"),
    ComputedEntry("Li2Si", -10.5, entry_id="c"),
    ComputedEntry("Li4Si2", -20.4, entry_id="d"),
]


MP = {"name": "Materials Project phases", "potential": DEFAULT, "version": "2025.02.12", "source": "CC BY 4.0"}


def as_json(entries):
    return json.dumps([entry.as_dict() for entry in entries])


def test_the_packaged_table_says_what_it_is():
    reference = packaged_reference()
    assert reference.potential == DEFAULT
    assert reference.version == "2025.02.12"
    assert len(reference.elements) == 89
    assert CATALOG[DEFAULT].reference.stat().st_size < 4e6
    assert reference.phases["energy_per_atom"].dtype == np.float64
    assert not reference.phases["formula"].duplicated().any()


@pytest.mark.parametrize("name", [name for name, row in CATALOG.items() if row.reference is not None])
def test_a_packaged_table_is_of_the_potential_that_names_it(name):
    reference = packaged_reference(name)
    assert reference.potential == name
    assert len(reference) > 1000 and reference.elements


def test_a_potential_without_a_table_says_so(monkeypatch):
    monkeypatch.setitem(CATALOG, "bare", replace(CATALOG[DEFAULT], name="bare", reference=None))
    with pytest.raises(ValueError, match=r"no reference table of bare .*, only of chgnet-0\.3\.0.*reference\.kind"):
        packaged_reference("bare")
    with pytest.raises(ValueError, match=r"unknown potential 'mace'; choose from chgnet-0\.3\.0, chgnet-r2scan"):
        packaged_reference("mace")


def test_the_packaged_lithium_silicides():
    phases = packaged_reference().of_system(["Si", "Li"]).set_index("formula")
    assert set(phases["system"]) == {"Li", "Si", "Li-Si"}
    assert {"Li15Si4", "Li2Si", "Li7Si3", "Li21Si5"} <= set(phases.index)
    assert phases.loc["Li15Si4", "relaxed"]
    assert phases.loc["Si", "volume_per_atom"] == pytest.approx(20.2, abs=0.4)


SYSTEMS = ["Li-Si", "Li-P-S", "Zn-P-S", "Na-Si"]


def test_leaving_phases_out_changes_no_decomposition_energy(tmp_path):
    energies = pd.read_parquet(ENERGIES)
    reference = load_reference_table(build_reference_table(ENERGIES, tmp_path / "table.parquet", **MP))
    assert len(reference.phases) < len(energies) / 2
    assert phases_checked(reference, energies, SYSTEMS) >= len(energies)  # S, P, Li and Si more than once


@pytest.mark.slow
@needs_whole
def test_leaving_phases_out_of_the_whole_data_changes_nothing_with_one_to_four_elements(tmp_path):
    energies = pd.read_parquet(WHOLE_ENERGIES)
    reference = load_reference_table(build_reference_table(WHOLE_ENERGIES, tmp_path / "table.parquet", **MP))
    systems = [Composition(formula).chemical_system for formula in energies["formula"].iloc[::1500]]
    some = [*SYSTEMS, *(system for system in systems if system.count("-") < 4)][:40]
    assert phases_checked(reference, energies, some) > 500


def phases_checked(reference, energies, systems):
    """How many phases of these systems have, against the reference, the energy above the hull that is stored."""
    checked = 0
    for system in systems:
        stability = Stability(reference, system)
        names = "|".join(sorted(system.split("-"), key=len, reverse=True))
        only = energies["formula"].str.fullmatch(f"(?:(?:{names})[0-9]*|[()0-9])+")
        for row in energies[only].itertuples():
            e_d = stability.decomposition(row.formula, row.energy_per_atom).e_d
            assert e_d == pytest.approx(row.e_above_hull, abs=1e-6)
            checked += 1
    return checked


def test_the_shipped_table_can_be_made_again(tmp_path):
    relaxed = ENERGIES.with_name("relaxed.parquet")
    out = build_reference_table(
        ENERGIES, tmp_path / "table.parquet", structures_parquet=PHASES, relaxed_parquet=[relaxed], **MP
    )
    made = load_reference_table(out)
    assert len(made) == 55
    for system in SYSTEMS:
        # Structures, for the volumes of phases that were not relaxed, are there of all phases of Li-Si.
        columns = [name for name in made.phases if system == "Li-Si" or name != "volume_per_atom"]
        one, shipped = (table.of_system(system.split("-"))[columns] for table in (made, packaged_reference()))
        pd.testing.assert_frame_equal(one.reset_index(drop=True), shipped.reset_index(drop=True))


def test_relaxed_energies_replace_single_points_before_the_lowest_is_picked(tmp_path):
    pd.DataFrame(
        {
            "material_id": ["a", "b", "c", "d"],
            "formula": ["Li", "Li", "Si", "LiSi"],
            "energy_per_atom": [-1.90, -1.89, -5.3, -3.0],
            "e_above_hull": [0.0, 0.01, 0.0, 0.6],
        }
    ).to_parquet(tmp_path / "energies.parquet")
    pd.DataFrame(
        {"material_id": ["a", "c"], "n_atoms": [2, 8], "cell": [[3, 4, 5, 90, 90, 90], [5, 5, 5, 90, 90, 120]]}
    ).to_parquet(tmp_path / "structures.parquet")
    pd.DataFrame({"material_id": ["b"], "energy_per_atom": [-1.95], "volume_per_atom": [19.0]}).to_parquet(
        tmp_path / "relaxed.parquet"
    )
    pd.DataFrame({"material_id": ["b"], "energy_per_atom": [-1.99]}).to_parquet(tmp_path / "later.parquet")
    common = {"structures_parquet": tmp_path / "structures.parquet", "version": "7", "potential": "toy", "name": "toys"}
    common["source"] = "my own"
    plain = load_reference_table(build_reference_table(tmp_path / "energies.parquet", tmp_path / "1.parquet", **common))
    relaxed = load_reference_table(
        build_reference_table(
            tmp_path / "energies.parquet",
            tmp_path / "2.parquet",
            relaxed_parquet=[tmp_path / "relaxed.parquet", tmp_path / "later.parquet"],
            **common,
        )
    )
    assert (plain.name, plain.potential, plain.version) == ("toys", "toy", "7")
    about = json.loads(pq.read_schema(tmp_path / "1.parquet").metadata[b"reference"])
    assert about["source"] == "my own" and "Materials Project" not in str(about)
    assert plain.phases["material_id"].tolist() == ["a", "c"]
    assert plain.phases["volume_per_atom"].tolist() == pytest.approx([30, 125 * np.sqrt(0.75) / 8], abs=1e-3)
    lithium = relaxed.phases.set_index("formula").loc["Li"]
    columns = ["material_id", "energy_per_atom", "volume_per_atom", "relaxed"]
    assert lithium[columns].tolist() == ["b", -1.95, 19.0, True]
    assert not relaxed.phases.set_index("formula").loc["Si", "relaxed"]


def test_a_missing_column_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "energies.parquet"
    pd.DataFrame({"material_id": ["a"], "formula": ["Li"], "energy": [-1.9]}).to_parquet(path)
    with pytest.raises(
        ValueError, match=r"no column energy_per_atom, e_above_hull; there are .*energy.*docs/reference"
    ):
        build_reference_table(path, tmp_path / "out.parquet", **MP)
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ValueError, match="not a Parquet file"):
        build_reference_table(tmp_path / "text.parquet", tmp_path / "out.parquet", **MP)
    assert not (tmp_path / "out.parquet").exists()


def test_a_foreign_table_is_refused(tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="no reference table"):
        load_reference_table(tmp_path / "x.parquet")


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())])
def test_entries_from_json(tmp_path, pack):
    path = tmp_path / "entries.json"
    path.write_bytes(pack(as_json(ENTRIES)))
    reference = load_entries(path, potential="toy")
    assert (reference.name, reference.potential) == ("entries.json", "toy")
    assert reference.phases["material_id"].tolist() == ["a", "b", "c", "d"]
    assert reference.phases["formula"].tolist() == ["Li", "Si", "Li2Si", "Li2Si"]
    assert reference.phases["energy_per_atom"].tolist() == pytest.approx([-1.9, -5.0, -3.5, -3.4])
    assert reference.elements == {"Li", "Si"}


def test_structures_in_entries_give_volumes(tmp_path):
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    path = tmp_path / "entries.json"
    path.write_text(as_json([ComputedStructureEntry(salt, -28.0, entry_id="mp-1")]))
    row = load_entries(path, potential="toy").phases.iloc[0]
    assert row["volume_per_atom"] == pytest.approx(5.64**3 / 8)
    assert row["energy_per_atom"] == pytest.approx(-3.5)


@pytest.mark.parametrize("kind", ["plain", "patched", "older"])
def test_a_phase_diagram_from_json(tmp_path, kind):
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram

    entries = [PDEntry(entry.composition, entry.energy) for entry in ENTRIES]
    path = tmp_path / "diagram.json"
    data = {
        "plain": lambda: PhaseDiagram(entries).as_dict(),
        "patched": lambda: PatchedPhaseDiagram(entries).as_dict(),
        "older": lambda: {"all_entries": [entry.as_dict() for entry in entries], "elements": ["Li", "Si"]},
    }[kind]()
    path.write_text(json.dumps(data, default=lambda x: x.as_dict() if hasattr(x, "as_dict") else x.tolist()))
    reference = load_entries(path, potential="toy")
    assert Stability(reference, "Li-Si").decomposition("Li2Si", -3.6).e_d == pytest.approx(-0.1)


def test_a_pickle_is_loaded_only_on_request(tmp_path):
    path = tmp_path / "diagram.pkl"
    path.write_bytes(pickle.dumps(PhaseDiagram(ENTRIES)))
    with pytest.raises(ValueError, match="allow_pickle=True"):
        load_entries(path, potential="toy")
    assert len(load_entries(path, potential="toy", allow_pickle=True)) == 4


def test_a_file_without_entries_is_refused(tmp_path):
    path = tmp_path / "empty.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="contains no entries"):
        load_entries(path, potential="toy")
    with pytest.raises(ValueError, match="there are no entries"):
        frame_of_entries([])


def test_a_missing_element_is_named():
    with pytest.raises(ValueError, match=r"of chgnet-0\.3\.0 has no elemental phase of Po"):
        packaged_reference().require(["Li", "Po"])


def test_the_materials_project_needs_its_client_and_a_key(monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(ImportError, match=r"mp-api"):
        load_materials_project(["Li"])
    monkeypatch.setitem(sys.modules, "mp_api", type(sys)("mp_api"))
    fake = type(sys)("mp_api.client")
    fake.MPRester = None
    monkeypatch.setitem(sys.modules, "mp_api.client", fake)
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(ValueError, match="MP_API_KEY"):
        load_materials_project(["Li"])


# Å³/atom at room temperature, from the edges of the cubic cells, and of LiSi a = 9.354 Å, c = 5.746 Å.
MEASURED = {
    "Si": 5.431**3 / 8, "NaCl": 5.640**3 / 8, "KCl": 6.292**3 / 8, "LiF": 4.026**3 / 8, "MgO": 4.212**3 / 8,
    "CaO": 4.811**3 / 8, "LiSi": 9.354**2 * 5.746 / 32,
}  # fmt: skip


@pytest.mark.parametrize(("formula", "measured"), MEASURED.items())
def test_volumes_of_known_compounds_are_those_measured(formula, measured):
    """Lattice constants of the functionals behind the data are at most 2 % too long: 6 % in the volume."""
    assert volume_per_atom(packaged_reference(), formula) == pytest.approx(measured, rel=0.06)


@pytest.mark.parametrize("formula", ["Li5Si2", "LiSi", "LiSi7"])
def test_a_volume_is_the_weighted_line_through_those_of_a_binary_system(formula):
    phases = packaged_reference().of_system(["Li", "Si"]).dropna(subset=["volume_per_atom"])
    phases = phases.loc[phases.groupby("formula")["energy_per_atom"].idxmin()]
    lithium = np.array([Composition(one).get_atomic_fraction("Li") for one in phases["formula"]])
    x, volumes = Composition(formula).get_atomic_fraction("Li"), phases["volume_per_atom"]
    weight = np.exp(-2 * (lithium - x) ** 2 / (2 * 0.2**2)) + 1e-3  # both fractions differ by as much
    line = np.polyfit(lithium, volumes, 1, w=np.sqrt(weight))
    expected = np.clip(np.polyval(line, x), volumes.min(), volumes.max())
    assert volume_per_atom(packaged_reference(), formula) == pytest.approx(expected, rel=1e-9)


def test_a_linear_system_is_interpolated_exactly():
    frame = pd.DataFrame(
        {
            "material_id": list("abc"),
            "formula": ["Li", "Si", "LiSi"],
            "energy_per_atom": [0.0, 0.0, -1.0],
            "volume_per_atom": [10.0, 30.0, 20.0],
            "relaxed": False,
            "system": ["Li", "Si", "Li-Si"],
        }
    )
    reference = Reference("toy", "toy", "1", frame)
    assert volume_per_atom(reference, "LiSi3") == pytest.approx(25)
    assert volume_per_atom(reference, "Li") == pytest.approx(10)
    with pytest.raises(ValueError, match="has no volume in Na"):
        volume_per_atom(reference, "Na")


def test_the_phases_of_a_system_are_collected_once_for_all_its_compositions(monkeypatch):
    reference = replace(packaged_reference())
    first = volume_per_atom(reference, "LiP3S5Cl")
    monkeypatch.setattr(Reference, "of_system", None)
    assert volume_per_atom(reference, "Li2PS4Cl") != first


# --- one scale ------------------------------------------------------------------------------------------------------


def entries_of(*rows):
    """Entries (formula, run type, correction in eV) as pymatgen writes them."""
    return [
        {"composition": Composition(formula).as_dict(), "energy": -5.0, "correction": correction}
        | ({"parameters": {"run_type": run_type}} if run_type else {})
        for formula, run_type, correction in rows
    ]


@pytest.mark.parametrize(
    ("rows", "potential", "words"),
    [
        ([("MgO", "GGA", 0.0)], "MP2020-corrected PBE", "MgO has a raw GGA energy without the corrections of MP2020"),
        ([("Fe2O3", "GGA+U", 0.0)], "MP2020-corrected PBE", "Fe2O3 has a raw GGA.U energy"),
        ([("MgO", "GGA", -0.7), ("Mg", "R2SCAN", 0.0)], "r2SCAN", r"mixes energies of .*\(MgO\) and r2SCAN \(Mg\)"),
        ([("Mg", "R2SCAN", 0.0)], "MP2020-corrected PBE", "holds energies of r2SCAN, not of MP2020-corrected PBE"),
    ],
)
def test_a_file_of_mixed_or_other_scales_is_refused(tmp_path, rows, potential, words) -> None:
    (tmp_path / "entries.json").write_text(json.dumps(entries_of(*rows)))
    with pytest.raises(ValueError, match=words):
        load_entries(tmp_path / "entries.json", potential=potential)


@pytest.mark.parametrize(
    "rows",
    [
        [("MgO", "GGA", -0.7), ("Mg", "GGA", 0.0), ("NiAl", "GGA", 0.0), ("Fe2O3", "GGA+U", -6.0)],
        [("MgO", None, 0.0), ("Mg", None, 0.0)],
    ],
)
def test_a_file_of_one_scale_is_read(tmp_path, rows) -> None:
    (tmp_path / "entries.json").write_text(json.dumps(entries_of(*rows)))
    assert len(load_entries(tmp_path / "entries.json", potential="MP2020-corrected PBE")) == len(rows)
