"""E_d of crystals of any chemical systems, and whether they are known, as columns of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.potentials.catalog import PotentialChoice, find_entry
from model.thermodynamics.reference import (
    Reference,
    load_reference_table,
    packaged_reference,
    require_comparable,
)
from model.thermodynamics.stability import Stability
from search.storage.ranking import products_text

NONE: Mapping[str, Any] = {"e_d": math.nan, "products": "", "e_d_missing": "", "known": ""}
NEW = "new"  # what is said of a crystal that is no known phase


class CrystalStability:
    """Decomposition energies against one reference; the hull of a chemical system is made when it is first needed.

    Args:
        potential: of the energies, a name of the catalogue, or a calculator.
        table: file of competing phases, as `hostguide reference build` writes it (default: the potential's packaged
            one).
        pressure: GPa, at which the crystals were relaxed. Competing phases are known at zero pressure only.

    Raises:
        ValueError: the file is no such table, or its energies cannot be compared with the potential's.
    """

    def __init__(self, potential: PotentialChoice, table: Path | None = None, *, pressure: float = 0.0) -> None:
        self._reference = _reference(potential, table)
        self._elements = self._reference.elements if self._reference else set()
        self._hulls: dict[frozenset[str], Stability] = {}
        self._missing = "" if self._reference else f"no table of phases of {find_entry(potential).name}"
        if pressure:
            self._missing = "phases are not known under pressure"

    def columns(self, crystal: Crystal, energy: float) -> dict[str, Any]:
        """Columns of a crystal with this energy (eV/atom): those of `NONE`, all empty if the energy is NaN.

        Returns:
            e_d in eV/atom, products with the fraction of the atoms in each, why there is no E_d, and the identifier of
            the known phase that the crystal is, or `NEW`.
        """
        if math.isnan(energy):
            return dict(NONE)
        return {**self._energies(crystal, energy), "known": packaged_library().known(crystal) or NEW}

    def _energies(self, crystal: Crystal, energy: float) -> dict[str, Any]:
        elements = frozenset(crystal.symbols)
        unknown = sorted(elements - self._elements)
        missing = self._missing or (f"no phase of {', '.join(unknown)}" if unknown else "")
        if missing or self._reference is None:
            return {**NONE, "e_d_missing": missing}
        if elements not in self._hulls:
            self._hulls[elements] = Stability(self._reference, elements)
        found = self._hulls[elements].decomposition(crystal.composition, energy)
        return {**NONE, "e_d": found.e_d, "products": products_text(found.products, found.single_points)}


def _reference(potential: PotentialChoice, table: Path | None) -> Reference | None:
    if table is None:
        return packaged_reference(potential) if find_entry(potential).reference else None
    if not table.is_file():
        raise ValueError(f"--reference {table} does not exist")
    if table.suffix != ".parquet":
        raise ValueError(f"--reference {table}: give a .parquet table, as `hostguide reference build` writes it")
    reference = load_reference_table(table)
    require_comparable(reference, potential)
    return reference
