"""What a search searches: a chemical system, mixtures of compounds, formulas or cells, and filters."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, model_validator

from model.crystals.composition import (
    CellFormula,
    can_be_neutral,
    from_formulas,
    from_system,
    from_terminals,
    has_stoichiometry,
    on_steps,
    parse_system,
    smallest_formulas,
    usual_valences,
)
from model.settings import Settings


class Compositions(Settings):
    """What to search: a chemical system, mixtures of compounds, formulas or exact cells; and filters."""

    system: str | None = None  # for example Li-Si
    composition_order: tuple[tuple[str, ...], ...] = ()  # pairs or chains (A, B): more A than B
    fractions: dict[str, tuple[float, float]] = Field({})  # element -> smallest and largest atomic fraction
    formulas: tuple[str, ...] = ()  # reduced formulas, expanded over Z within the atom budget
    cells: tuple[dict[str, int], ...] = ()  # exact atom counts
    terminals: tuple[str, ...] = ()  # compounds of whose formula units all mixtures are searched, [Li2S, P2S5, ZnS]
    neutral: bool = False  # only compositions whose charges can add up to zero
    valences: dict[str, tuple[int, ...]] = Field({})  # element -> charges, for `neutral`; default: the usual ones
    step: float | None = Field(None, gt=0, lt=1)  # only atomic fractions that are multiples of it
    families: tuple[str, ...] = ()  # only these stoichiometries, by name or as ABC3
    max_formulas: int | None = Field(None, ge=1)  # only so many reduced formulas, those with the fewest atoms
    min_atoms: int = Field(2, ge=1)
    max_atoms: int = Field(12, ge=1, le=500)

    @model_validator(mode="after")
    def _one_source(self) -> Compositions:
        given = [name for name in ("system", "terminals", "formulas", "cells") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of system, terminals, formulas and cells; found {found}")
        if self.valences and not self.neutral:
            raise ValueError("valences has no effect without neutral: true; add it, or remove valences")
        if self.system is None and (self.composition_order or self.fractions):
            raise ValueError(
                "composition_order and fractions constrain a system and have no effect with formulas or cells: "
                "remove them, or give a system"
            )
        self.expand()
        return self

    def expand(self) -> list[CellFormula]:
        """All cells to search; raises ValueError if none fits the atom budget and the filters."""
        return list(self._cells)

    @cached_property
    def _cells(self) -> list[CellFormula]:
        cells = before = self._all()
        if self.neutral:
            valences = usual_valences(self.elements, self.valences)
            cells = [cell for cell in cells if can_be_neutral(cell, valences)]
        if (step := self.step) is not None:
            cells = [cell for cell in cells if on_steps(cell, step)]
        if self.families:
            cells = [cell for cell in cells if has_stoichiometry(cell, self.families)]
        if not cells:
            raise ValueError(
                f"none of {len(before)} compositions is left by neutral, step and families: raise max_atoms or loosen "
                "them"
            )
        return cells if self.max_formulas is None else smallest_formulas(cells, self.max_formulas)

    def _all(self) -> list[CellFormula]:
        if self.system is not None:
            return from_system(
                self.system,
                max_atoms=self.max_atoms,
                min_atoms=self.min_atoms,
                composition_order=self.composition_order,
                fractions=self.fractions,
            )
        if self.terminals:
            return from_terminals(self.terminals, max_atoms=self.max_atoms, min_atoms=self.min_atoms)
        if self.formulas:
            return from_formulas(self.formulas, max_atoms=self.max_atoms, min_atoms=self.min_atoms)
        return list(dict.fromkeys(CellFormula.from_counts(counts) for counts in self.cells))

    @property
    def elements(self) -> tuple[str, ...]:
        """All elements, sorted by symbol."""
        if self.system is not None:
            return tuple(sorted(parse_system(self.system)))
        return tuple(sorted({element for cell in self._all() for element in cell.elements}))
