"""A second potential as a judge: crystals relaxed with it, and their E_d against its own hull.

Energies of two potentials are never mixed. Each has its own competing phases, so that its errors cancel as far as they
can; where two potentials differ about E_d, the difference says how far to trust either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.crystals.crystal import Crystal
from model.potentials.catalog import CATALOG
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from model.thermodynamics import STABLE
from model.thermodynamics.own_hull import HullSettings, judge_hull
from model.thermodynamics.reference import Reference, packaged_reference
from model.thermodynamics.stability import Stability


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """What one potential says about a crystal.

    Attributes:
        relaxation: of the crystal.
        e_d: eV/atom against the potential's hull; NaN if the relaxation failed.
        products: reduced formula -> fraction of the atoms in it.
    """

    relaxation: Relaxation
    e_d: float
    products: dict[str, float]

    @property
    def energy(self) -> float:
        """eV/atom after relaxation; NaN if it failed."""
        return self.relaxation.energy_final if may_be_ranked(self.relaxation) else float("nan")

    @property
    def crystal(self) -> Crystal:
        """After relaxation."""
        return self.relaxation.final

    @property
    def is_stable(self) -> bool:
        """Whether it lies on or below the hull; false if the relaxation failed."""
        return self.e_d <= STABLE


def own_reference(
    elements: Collection[str],
    potential: Potential,
    *,
    settings: HullSettings | None = None,
    folder: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """The competing phases of a potential: its packaged table if that is relaxed, else its hull made on the spot.

    Args:
        elements: of the system.
        potential: gives the energies.
        settings, folder, report: see `judge_hull`.

    Raises:
        ValueError: an element has no phase.
    """
    entry = CATALOG.get(potential.name)
    if entry is not None and entry.reference is not None:
        packaged = packaged_reference(potential.name)
        if packaged.phases["relaxed"].any():
            packaged.require(elements)
            return packaged
    return judge_hull(elements, potential, settings=settings, folder=folder, report=report)


def judge(
    crystals: Sequence[Crystal],
    potential: Potential,
    hull: Stability,
    relaxation: RelaxSettings | None = None,
    *,
    report: Callable[[int, Relaxation], None] = lambda index, result: None,
) -> list[Judgement]:
    """Relax crystals with a potential and measure them against its hull, in the order given.

    Args:
        crystals: of the hull's elements.
        potential: the one whose hull it is.
        hull: of `own_reference`.
        relaxation: how; by default as the phases of the hull, within their space groups.
        report: see `relax`.

    Raises:
        ValueError: the hull is of another potential.
    """
    if hull.reference.potential != potential.name:
        raise ValueError(
            f"energies of {potential.name} cannot be compared with a hull of {hull.reference.potential}: make its own"
        )
    results = relax(crystals, potential, relaxation or HullSettings().relaxation, report=report)
    return [_judgement(result, hull) for result in results]


def _judgement(result: Relaxation, hull: Stability) -> Judgement:
    if not may_be_ranked(result) or result.reason == Reason.NAN:
        return Judgement(relaxation=result, e_d=float("nan"), products={})
    found = hull.decomposition(result.final.composition, result.energy_final)
    return Judgement(relaxation=result, e_d=found.e_d, products=found.products)
