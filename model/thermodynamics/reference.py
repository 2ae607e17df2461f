"""Competing phases: the energies against which the stability of candidates is measured.

Energies are of one potential or one level of theory, spelt as in `model.potentials.catalog`. Tables of some potentials
come with the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Composition

from model.crystals.parquet import read_columns, read_crystals
from model.potentials.catalog import CATALOG, DEFAULT, PotentialChoice, find_entry, why_not_comparable

if TYPE_CHECKING:
    from model.crystals.crystal import Crystal
    from model.potentials.interface import Potential

SEE = "docs/reference.md"
UNITS = "energy_per_atom eV, volume_per_atom Å³"
COLUMNS = ("material_id", "formula", "energy_per_atom", "volume_per_atom", "relaxed")


@dataclass(frozen=True, eq=False)
class Reference:
    """Phases with energies of one potential (or of one kind of DFT).

    Attributes:
        name: where the phases come from.
        potential: method of the energies: a potential's name in the catalogue, or a level of theory such as
            ``MP2020-corrected PBE`` or ``r2SCAN``.
        version: of the phases' source.
        phases: one row per phase: material_id, formula (reduced), energy_per_atom (eV), volume_per_atom (Å³, NaN if
            unknown), relaxed (whether the phase is relaxed with the method of the energies; taken for granted of
            entries), system (elements in alphabetical order, joined by hyphens).
    """

    name: str
    potential: str
    version: str
    phases: pd.DataFrame

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def elements(self) -> set[str]:
        """Elements that have a phase of their own."""
        return {system for system in self.phases["system"].unique() if "-" not in system}

    def require(self, elements: Iterable[str]) -> None:
        """Check that every element has an elemental phase; raises ValueError naming those that do not."""
        missing = sorted(set(elements) - self.elements)
        if missing:
            raise ValueError(
                f"the reference {self.name!r} of {self.potential} has no elemental phase of {', '.join(missing)}: "
                "use a reference that covers it, or leave the element out"
            )

    def of_system(self, elements: Collection[str]) -> pd.DataFrame:
        """The phases made of these elements only, sub-systems included."""
        return self.phases[self.phases["system"].isin(_subsystems(elements))]


def packaged_reference(potential: PotentialChoice = DEFAULT) -> Reference:
    """The table of a potential's energies that comes with the package; docs/reference.md says what it covers.

    Raises:
        ValueError: there is no such potential, or it has no table.

    Example:
        >>> phases = packaged_reference().of_system(["Li", "Si"]).set_index("formula")
        >>> print(*phases.loc["Li15Si4", ["material_id", "energy_per_atom", "relaxed"]])
        mp-569849 -2.889168 True
    """
    entry = find_entry(potential)
    if entry.reference is None:
        having = ", ".join(name for name, row in CATALOG.items() if row.reference is not None)
        raise ValueError(
            f"no reference table of {entry.name} comes with hostguide, only of {having}: have it made with "
            "reference.kind: library, or give one of your own, with reference.kind: table or file"
        )
    return _cached_table(entry.reference)


def require_comparable(reference: Reference, potential: PotentialChoice) -> None:
    """Check that energies of a potential can be compared with those of a reference; raises ValueError if not."""
    problem = why_not_comparable(potential, reference.potential)
    if problem:
        raise ValueError(f"reference: {problem}")


@cache
def _cached_table(path: Path) -> Reference:
    return load_reference_table(path)


def load_reference_table(source: str | Path | bytes, *, name: str = "") -> Reference:
    """Read a table written by `build_reference_table` or made by `reference_bytes`.

    Args:
        source: the file, or its content.
        name: of the file, for messages, if its content is given.

    Raises:
        ValueError: it is no such table.
    """
    table = pq.read_table(pa.BufferReader(source) if isinstance(source, bytes) else source)
    about = json.loads((table.schema.metadata or {}).get(b"reference", b"{}"))
    missing = {"name", "potential", "version"} - set(about)
    if missing:
        raise ValueError(
            f"{name or str(source)} is no reference table: its metadata lacks {', '.join(sorted(missing))}"
        )
    frame = table.to_pandas()
    return Reference(about["name"], about["potential"], about["version"], add_chemsys_column(frame))


def volume_per_atom(reference: Reference, composition: Composition | str) -> float:
    """Estimate V0 in Å³/atom of a composition from the phases of its system.

    Locally weighted linear regression (Cleveland 1979): V(x) = Σ_e x_e v_e is fitted to the lowest phase of each
    formula, weighted by ``exp(-|x - x_i|² / 2·0.2²) + 0.001``, and the answer is kept between the smallest and largest
    volume of the system. Compounds are often denser than a mixture of their elements; the weights let that show.

    Raises:
        ValueError: no phase of the system has a known volume.
    """
    composition = Composition(composition)
    elements = tuple(sorted(str(element) for element in composition.elements))
    fractions, volumes = _lowest_phases(reference, elements)
    wanted = np.array(_fractions(composition, elements))
    weight = np.sqrt(np.exp(-np.square(fractions - wanted).sum(1) / (2 * 0.2**2)) + 1e-3)
    slopes = np.linalg.lstsq(fractions * weight[:, None], volumes * weight, rcond=None)[0]
    return float(np.clip(wanted @ slopes, volumes.min(), volumes.max()))


@lru_cache(maxsize=32)  # a system is asked for all its compositions
def _lowest_phases(reference: Reference, elements: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Atomic fractions (n, elements) and Å³/atom (n,) of the lowest phase of each formula with a known volume."""
    phases = reference.of_system(elements).dropna(subset=["volume_per_atom"])
    if phases.empty:
        raise ValueError(
            f"the reference {reference.name!r} has no volume in {'-'.join(elements)}: give the volume per atom yourself"
        )
    phases = phases.sort_values("energy_per_atom").drop_duplicates("formula")
    fractions = np.array([_fractions(Composition(formula), elements) for formula in phases["formula"]])
    return fractions, phases["volume_per_atom"].to_numpy()


def build_reference_table(
    energies_parquet: str | Path,
    out: str | Path,
    *,
    structures_parquet: str | Path | None = None,
    relaxed_parquet: Sequence[str | Path] = (),
    within: float = 0.1,
    name: str,
    potential: str,
    version: str,
    source: str,
) -> Path:
    """Write the table of reference phases: of each formula the lowest phase, if it lies near the hull.

    Leaving out phases above the hull changes no decomposition energy; those up to ``within`` above it are kept because
    their volumes and, once relaxed, their energies still matter.

    Args:
        energies_parquet: material_id, formula, energy_per_atom and e_above_hull (eV/atom) of all phases.
        out: the table to write.
        structures_parquet: material_id, n_atoms and cell (a, b, c, α, β, γ), for volumes.
        relaxed_parquet: files with material_id and energy_per_atom of relaxed phases, and volume_per_atom if known;
            they replace single-point values before the lowest phase is picked, and earlier files take precedence.
        within: eV/atom above the hull.
        name: of the reference.
        potential: that computed all the energies, see `Reference`.
        version: of the database.
        source: source of the phases, for credit, and their licence.

    Raises:
        ValueError: a file lacks a column.
    """
    frame = read_columns(energies_parquet, ["material_id", "formula", "energy_per_atom", "e_above_hull"], see=SEE)
    frame = frame[frame["e_above_hull"] <= within].assign(relaxed=False)
    frame["volume_per_atom"] = frame["material_id"].map(_volumes(structures_parquet)).astype(float).round(3)
    if relaxed_parquet:
        columns, volume = ["material_id", "energy_per_atom"], ["volume_per_atom"]
        tables = [read_columns(path, columns, optional=volume, see=SEE) for path in relaxed_parquet]
        frame = _replace_relaxed(frame, pd.concat(tables).drop_duplicates("material_id"))
    frame = frame.sort_values(["energy_per_atom", "material_id"]).drop_duplicates("formula").sort_values("formula")
    about = {
        "name": name,
        "potential": potential,
        "version": version,
        "source": source,
        "made": f"lowest phase of each formula within {within} eV/atom of the hull; single points unless `relaxed`",
        "units": UNITS,
    }
    Path(out).write_bytes(_table_bytes(frame, about))
    return Path(out)


def reference_bytes(reference: Reference) -> bytes:
    """A reference as the content of a table, for `load_reference_table` and ``reference: {kind: table}``."""
    about = {"name": reference.name, "potential": reference.potential, "version": reference.version}
    return _table_bytes(reference.phases, {**about, "units": UNITS})


def _table_bytes(frame: pd.DataFrame, about: Mapping[str, str]) -> bytes:
    table = pa.Table.from_pandas(frame[list(COLUMNS)], preserve_index=False)
    table = table.replace_schema_metadata({"reference": json.dumps(about)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", compression_level=19, use_dictionary=False)
    return bytes(buffer.getvalue())


def of_systems(phases: pd.DataFrame, systems: Iterable[Collection[str]]) -> np.ndarray:
    """(len(phases),) bool, whether each phase belongs to one of these chemical systems or their sub-systems."""
    return phases["system"].isin([part for system in systems for part in _subsystems(system)]).to_numpy()


def evaluate_reference(
    structures_parquet: str | Path, elements: Collection[str], potential: Potential, *, within: float = 0.05
) -> Reference:
    """A reference of single points: the phases of one system with another potential's energies.

    Args:
        structures_parquet: material_id, formula, cell, frac_coords, atomic_numbers and e_above_hull.
        elements: of the system.
        potential: gives the energies.
        within: eV/atom above the hull of the file's own energies; phases further above are unlikely to lie on the
            hull of the other potential.

    Raises:
        ValueError: the file has no phase of the system.
    """
    frame = add_chemsys_column(pd.read_parquet(structures_parquet, filters=[("e_above_hull", "<=", within)]))
    frame = frame[frame["system"].isin(_subsystems(elements))].reset_index(drop=True)
    if frame.empty:
        raise ValueError(f"{structures_parquet} has no phase of {'-'.join(sorted(elements))} near the hull")
    crystals = read_crystals(frame)
    frame["energy_per_atom"] = [one.energy for one in potential.evaluate(crystals)]
    frame["volume_per_atom"] = [crystal.volume / len(crystal) for crystal in crystals]
    phases = frame.assign(relaxed=False).dropna(subset=["energy_per_atom"])[[*COLUMNS, "system"]]
    name = f"single points of {Path(structures_parquet).name}"
    return Reference(name, potential.name, "", phases.reset_index(drop=True))


def read_structures(structures_parquet: str | Path, system: str, *, within: float) -> list[Crystal]:
    """The crystals of exactly this system, elements in alphabetical order, up to ``within`` eV/atom above the hull."""
    frame = add_chemsys_column(pd.read_parquet(structures_parquet, filters=[("e_above_hull", "<=", within)]))
    return read_crystals(frame[frame["system"] == system])


def _replace_relaxed(frame: pd.DataFrame, relaxed: pd.DataFrame) -> pd.DataFrame:
    known = relaxed.set_index("material_id")
    energy = frame["material_id"].map(known["energy_per_atom"])
    frame = frame.assign(energy_per_atom=energy.fillna(frame["energy_per_atom"]), relaxed=energy.notna())
    if "volume_per_atom" in known:
        volume = frame["material_id"].map(known["volume_per_atom"])
        frame = frame.assign(volume_per_atom=volume.fillna(frame["volume_per_atom"]))
    return frame


def _volumes(structures_parquet: str | Path | None) -> dict[str, float]:
    """Å³/atom of each material whose cell is known."""
    if structures_parquet is None:
        return {}
    frame = read_columns(structures_parquet, ["material_id", "n_atoms", "cell"], see=SEE)
    cells = np.stack(frame["cell"].to_numpy()).astype(float)
    cosines = np.cos(np.radians(cells[:, 3:]))
    shape = np.sqrt(1 - np.square(cosines).sum(1) + 2 * cosines.prod(1))
    return dict(zip(frame["material_id"], cells[:, :3].prod(1) * shape / frame["n_atoms"].to_numpy(), strict=True))


def _subsystems(elements: Iterable[str]) -> list[str]:
    names = sorted(set(elements))
    return ["-".join(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]


def add_chemsys_column(frame: pd.DataFrame) -> pd.DataFrame:
    """Phases with the column ``system``: the elements of ``formula`` in alphabetical order, joined by hyphens."""
    systems = {formula: "-".join(sorted(set(re.findall("[A-Z][a-z]?", formula)))) for formula in set(frame["formula"])}
    return frame.assign(system=frame["formula"].map(systems)).reset_index(drop=True)


def _fractions(composition: Composition, elements: Iterable[str]) -> list[float]:
    return [composition.get_atomic_fraction(element) for element in elements]
