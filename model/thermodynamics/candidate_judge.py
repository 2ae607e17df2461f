"""The judge of a search: which of its crystals a second potential looks at, and what it says."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints
from model.potentials.catalog import PotentialChoice, load_potential
from model.relaxation.relax import RelaxSettings
from model.thermodynamics.correction import Shift
from model.thermodynamics.judge import judge
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Stability


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgeRequest:
    """Which crystals of a batch are judged.

    Attributes:
        below: eV/atom; those that the judge may put below this, by its error bar.
        shifts: reduced formula -> what is expected of the judge.
    """

    below: float
    shifts: Mapping[str, Shift]


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """What the judge of a search said about a crystal, and what was expected.

    Attributes:
        expected, error: eV/atom, E_d that was expected of the judge, and its standard deviation.
        judge: name of the potential; None if it was not asked, and then all that follows is None.
        first: eV/atom, E_d of the crystal as the search left it.
        e_d: eV/atom; after relaxation by the judge, or ``first`` where relaxing could not bring it below the bar.
        energy: eV/atom, likewise.
        products: likewise.
        crystal: likewise.
        fingerprint: of that, see `model.crystals.matching.distance_fingerprints`.
        seconds: share of the wall time of the batch.
    """

    expected: float
    error: float
    judge: str | None = None
    first: float | None = None
    e_d: float | None = None
    energy: float | None = None
    products: Mapping[str, float] | None = None
    crystal: Crystal | None = None
    fingerprint: np.ndarray | None = None
    seconds: float | None = None


class CandidateJudge:
    """Judges the low crystals of a search.

    Args:
        potential: the judge.
        reference: its competing phases.
        elements: of the search.
        relaxation: of the crystals.
        gain: eV/atom that relaxing may lower a crystal by; what lies higher above the bar is not relaxed.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        potential: PotentialChoice,
        reference: Reference,
        elements: Collection[str],
        relaxation: RelaxSettings,
        gain: float,
        device: str = "cpu",
    ) -> None:
        self.potential = load_potential(potential, device=device)
        self.hull, self.relaxation, self.gain = Stability(reference, elements), relaxation, gain

    def judge(
        self, crystals: Sequence[Crystal | None], e_d: Sequence[float | None], request: JudgeRequest
    ) -> list[Said | None]:
        """One answer per crystal, in order; None for those without E_d.

        Args:
            crystals: as the search relaxed them.
            e_d: eV/atom, of the search; None for crystals that are not to be judged.
            request: which of the others are judged.
        """
        began = time.monotonic()
        said: list[Said | None] = [
            None if crystal is None or energy is None else _expected(crystal.formula, energy, request)
            for crystal, energy in zip(crystals, e_d, strict=True)
        ]
        points = self._single_points(
            {
                place: crystal
                for place, (crystal, one) in enumerate(zip(crystals, said, strict=True))
                if crystal is not None and one is not None and one.expected - one.error <= request.below
            }
        )
        near = {place: one for place, one in points.items() if one.e_d - self.gain <= request.below}
        relaxed = judge([one.crystal for one in near.values()], self.potential, self.hull, self.relaxation)
        better = {place: one for place, one in zip(near, relaxed, strict=True) if math.isfinite(one.e_d)}
        last_of = {place: better.get(place, point) for place, point in points.items()}
        fingerprints = distance_fingerprints([one.crystal for one in last_of.values()])
        seconds = (time.monotonic() - began) / max(1, len(points))
        for (place, last), fingerprint in zip(last_of.items(), fingerprints, strict=True):
            before = said[place]
            assert before is not None
            said[place] = replace(
                before,
                judge=self.potential.name,
                first=points[place].e_d,
                e_d=last.e_d,
                energy=last.energy,
                products=last.products,
                crystal=last.crystal,
                fingerprint=fingerprint,
                seconds=seconds,
            )
        return said

    def _single_points(self, crystals: Mapping[int, Crystal]) -> dict[int, _Point]:
        """E_d of crystals as they are; those that the potential cannot compute are left out."""
        points = {}
        for (place, crystal), result in zip(
            crystals.items(), self.potential.evaluate(list(crystals.values())), strict=True
        ):
            if not result.problem:
                found = self.hull.decomposition(crystal.composition, result.energy)
                points[place] = _Point(crystal, result.energy, found.e_d, found.products)
        return points


class _Point(NamedTuple):
    """A crystal as it is, with the attributes of a `Judgement`."""

    crystal: Crystal
    energy: float
    e_d: float
    products: dict[str, float]


def _expected(formula: str, e_d: float, request: JudgeRequest) -> Said:
    shift = request.shifts.get(formula, Shift())
    return Said(expected=shift.expected(e_d), error=shift.error)
