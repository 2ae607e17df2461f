"""What `hostguide inpaint` writes and prints: CIFs, rows for tables and JSON, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from search.studies.inpaint import Filled


def write_all(filled: list[Filled], out: Path) -> list[Path]:
    """Write CIFs of all arrangements, lowest energy first; CIFs of an earlier call are removed."""
    for old in out.glob("[0-9]*_*_+*meV.cif"):
        old.unlink()
    return [_write(one, position, filled[0], out) for position, one in enumerate(filled, start=1)]


def _write(one: Filled, position: int, best: Filled, out: Path) -> Path:
    from pymatgen.io.cif import CifWriter

    out.mkdir(parents=True, exist_ok=True)
    above = 1e3 * (one.relaxation.energy_final - best.relaxation.energy_final)
    group = one.space_group.replace("/", "_")
    path = out / f"{position:02d}_{one.crystal.formula}_{group}_{above:+.0f}meV.cif"
    CifWriter(one.crystal.to_pymatgen()).write_file(path)  # all atoms unchanged, no symmetry imposed
    return path


def row_of(one: Filled, path: Path, best: Filled, volume: float) -> dict[str, Any]:
    """Fields of the record of an arrangement; ``volume`` is that of the host as given, in Å³."""
    energy = one.relaxation.energy_final
    return {
        "guests": int(one.guest.sum()),
        "formula": one.crystal.formula,
        "atoms": len(one.crystal),
        "energy": energy,
        "above_best": energy - best.relaxation.energy_final,
        "space_group": one.space_group,
        "max_force": one.relaxation.max_force,
        "volume_change_percent": 100 * (one.crystal.volume / volume - 1),
        "file": str(path),
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Arrangements of one content, lowest energy first."""
    table = Table("#", "E eV/atom", "above best meV/atom", "space group", "max force eV/Å", "volume change %", "file")
    if is_insertion := rows[0]["voltage"] is not None:
        table = Table(
            "#", "E eV/atom", "above best meV/atom", "space group", "V", "host kept", "volume change %", "file"
        )
    for row in rows:
        inserted = (f"{row['voltage']:.2f}", "yes" if row["host_kept"] else "no") if is_insertion else ()
        table.add_row(
            str(row["rank"]),
            f"{row['energy']:.4f}",
            f"{1e3 * row['above_best']:.1f}",
            row["space_group"],
            *(inserted or (f"{row['max_force']:.3f}",)),
            f"{row['volume_change_from_empty_percent' if is_insertion else 'volume_change_percent']:+.1f}",
            Path(row["file"]).name,
        )
    return table


def sweep_table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The lowest arrangement of each content, with the voltages of the plateaus between those on the hull."""
    table = Table(
        "guests", "formula", "E eV/atom", "space group", "V from empty", "V of step", "host kept", "volume change %"
    )
    for row in rows:
        table.add_row(
            str(row["guests"]),
            row["formula"],
            f"{row['energy']:.4f}",
            row["space_group"],
            *("" if row[key] is None else f"{row[key]:.2f}" for key in ("voltage", "step_voltage")),
            "yes" if row["host_kept"] else "no",
            f"{row['volume_change_from_empty_percent']:+.1f}",
        )
    return table
