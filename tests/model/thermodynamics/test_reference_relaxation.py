"""Relaxing many known phases: what is chosen, stopping and going on, and what the reference table makes of it."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.thermodynamics import reference_relaxation as relaxed_phases
from model.thermodynamics.reference import build_reference_table, load_reference_table
from model.thermodynamics.reference_relaxation import PhaseSettings, choose, merge, relax_phases

SETTINGS = PhaseSettings(within=0.05)
PHASES = {"Cu": 3.8, "Al": 4.2, "Ni": 3.4, "Pd": 4.0, "Ag": 4.0, "Au": 4.2}


@pytest.fixture
def structures(tmp_path):
    """Six metals, stretched or squeezed; Cu and Pd in cells of four atoms; silver far above the hull; one broken."""
    rows = []
    for name, a in PHASES.items():
        atoms = bulk(name, "fcc", a=a, cubic=name in ("Cu", "Pd"))
        rows.append((name, atoms, 0.2 if name == "Ag" else 0.0))
    rows.append(("X", bulk("Pt", "fcc", a=4.0), 0.0))
    frame = pd.DataFrame(
        {
            "material_id": [name for name, _, _ in rows],
            "formula": [atoms.symbols[0] for _, atoms, _ in rows],
            "n_atoms": [len(atoms) for _, atoms, _ in rows],
            "cell": [atoms.cell.cellpar() for _, atoms, _ in rows],
            "atomic_numbers": [atoms.numbers for _, atoms, _ in rows],
            "frac_coords": [atoms.get_scaled_positions().ravel() for _, atoms, _ in rows],
            "e_above_hull": [above for _, _, above in rows],
        }
    )
    frame.at[len(rows) - 1, "frac_coords"] = np.full(3, np.nan)
    frame.to_parquet(tmp_path / "structures.parquet")
    return tmp_path / "structures.parquet"


@pytest.fixture
def emt():
    return ASEPotential(EMT(), version="1")


def test_systems_named_first_come_first_then_small_cells(structures) -> None:
    assert choose(structures, SETTINGS)["material_id"].tolist() == ["Al", "Au", "Ni", "X", "Cu", "Pd"]
    assert choose(structures, SETTINGS, first=["Pd-Au"])["material_id"].tolist() == ["Au", "Pd", "Al", "Ni", "X", "Cu"]
    assert len(choose(structures, PhaseSettings(within=0.05, max_atoms=1))) == 4
    with pytest.raises(ValueError, match="unknown element 'Xy'"):
        choose(structures, SETTINGS, first=["Xy"])
    with pytest.raises(ValueError, match=r"nowhere.parquet does not exist"):
        choose(structures.with_name("nowhere.parquet"), SETTINGS)
    alone = pd.read_parquet(structures).query("material_id == 'Cu'")
    alone.to_parquet(structures)
    with pytest.raises(ValueError, match="no phase within"):
        choose(structures, PhaseSettings(max_atoms=1))


def test_known_phases_are_left_out(structures, tmp_path) -> None:
    known = tmp_path / "known.parquet"
    pd.DataFrame({"material_id": ["Al", "X", "other"], "energy_per_atom": 0.0}).to_parquet(known)
    assert choose(structures, SETTINGS, known=known)["material_id"].tolist() == ["Au", "Ni", "Cu", "Pd"]
    pd.DataFrame({"material_id": [*PHASES, "X"]}).to_parquet(known)
    with pytest.raises(ValueError, match=r"no phase within 0.05 eV/atom of .* that .*known.parquet does not know"):
        choose(structures, SETTINGS, known=known)
    with pytest.raises(ValueError, match=r"lost.parquet does not exist"):
        choose(structures, SETTINGS, known=tmp_path / "lost.parquet")


def test_what_is_stopped_goes_on_and_nothing_is_done_twice(structures, tmp_path, emt, monkeypatch) -> None:
    monkeypatch.setattr(relaxed_phases, "PART_ATOMS", 3)
    phases, folder = choose(structures, SETTINGS), tmp_path / "out"
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relax_phases(phases, folder, emt, SETTINGS, report=stop)
    assert seen[0] == (0, 6) and 3 < seen[-1][0] < 6
    stored = relax_phases(phases, folder, emt, SETTINGS, report=lambda *done: seen.append(done))
    assert seen[-1] == (6, 6) and seen[-2][0] >= 4
    assert sorted(stored["material_id"]) == ["Al", "Au", "Cu", "Ni", "Pd", "X"]
    assert not list(folder.glob("_tmp*"))

    known = stored.set_index("material_id")
    assert known.loc["X", "reason"] == "nan" and (known.drop("X")["reason"] == "converged").all()
    assert (known["energy_per_atom"] < known["energy_single_point"]).drop("X").all()
    row = known.loc["Cu"]
    copper = Crystal(row["lattice"], row["frac_coords"], row["atomic_numbers"])
    (again,) = emt.evaluate([copper])
    assert again.energy == pytest.approx(known.loc["Cu", "energy_per_atom"], abs=1e-9)
    assert copper.volume / 4 == pytest.approx(known.loc["Cu", "volume_per_atom"])
    assert sorted(pd.read_parquet(folder / "relaxed.parquet")["material_id"]) == ["Al", "Au", "Cu", "Ni", "Pd"]


def test_shares_of_one_folder_make_the_whole(structures, tmp_path, emt) -> None:
    phases = choose(structures, SETTINGS)
    first = relax_phases(phases, tmp_path / "out", emt, SETTINGS, share=(1, 2))
    assert 0 < len(first) < 6
    relax_phases(phases, tmp_path / "out", emt, SETTINGS, share=(2, 2))
    assert sorted(merge(tmp_path / "out")["material_id"]) == ["Al", "Au", "Cu", "Ni", "Pd", "X"]


def test_other_settings_and_a_second_process_are_refused(structures, tmp_path, emt) -> None:
    phases, folder = choose(structures, SETTINGS), tmp_path / "out"
    assert relax_phases(phases, folder, emt, SETTINGS, max_seconds=-1).empty
    with pytest.raises(ValueError, match="other settings"):
        relax_phases(phases, folder, ASEPotential(EMT(), version="2"), SETTINGS)

    def again(done: int, total: int) -> None:
        relax_phases(phases, folder, emt, SETTINGS)

    with pytest.raises(ValueError, match=rf"process {os.getpid()} on .* works on this share"):
        relax_phases(phases, folder, emt, SETTINGS, report=again)


def test_the_table_takes_relaxed_energies_and_marks_the_others(structures, tmp_path, emt) -> None:
    stored = relax_phases(choose(structures, SETTINGS, first=["Cu"])[:1], tmp_path / "out", emt, SETTINGS)
    points = pd.DataFrame(
        {
            "material_id": ["Cu", "Al"],
            "formula": ["Cu", "Al"],
            "energy_per_atom": [9.0, 9.0],
            "e_above_hull": [0.0, 0.0],
        }
    )
    points.to_parquet(tmp_path / "energies.parquet")
    table = load_reference_table(
        build_reference_table(
            tmp_path / "energies.parquet",
            tmp_path / "table.parquet",
            name="metals",
            potential="EMT",
            version="1",
            source="made up",
            relaxed_parquet=[tmp_path / "out" / "relaxed.parquet"],
        )
    ).phases.set_index("formula")
    assert table["relaxed"].to_dict() == {"Cu": True, "Al": False}
    assert table.loc["Cu", "energy_per_atom"] == stored["energy_per_atom"].item()
