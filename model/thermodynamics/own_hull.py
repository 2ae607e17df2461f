"""The hull of any potential, made on the spot: the known phases of a system, relaxed with that potential.

Only phases that could matter are relaxed. All of them are evaluated as single points first. Those on the hull are
relaxed, then those so little above it that a relaxation could bring them down, and so on as the hull moves, until none
is left. A phase that stays a single point lies above the hull by more than relaxation has ever gained, and so changes
no decomposition energy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from model.crystals.composition import parse_system
from model.files import DATA
from model.library.phases import Phase, PhaseLibrary, packaged_library
from model.potentials.catalog import DEFAULT
from model.potentials.interface import Potential
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from model.settings import Settings
from model.thermodynamics.phase_cache import JudgedPhase, PhaseCache
from model.thermodynamics.reference import COLUMNS, Reference, add_chemsys_column, packaged_reference
from model.thermodynamics.stability import Stability

NAME = "known phases"  # of such a reference
REBUILT = DATA / "rebuilt-phases.parquet"  # phases on the hull whose geometry the library lacks
PART_ATOMS = 300  # evaluated or relaxed between two reports


class HullSettings(Settings):
    """How the hull of a potential is made."""

    relaxation: RelaxSettings = RelaxSettings(fmax=0.01, keep_symmetry=True)
    gain: float = Field(0.05, gt=0)  # eV/atom that relaxation may lower a single point by


def judge_hull(
    system: str | Collection[str],
    potential: Potential,
    *,
    settings: HullSettings | None = None,
    folder: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """The known phases of a system with a potential's energies, relaxed where that could change the hull.

    What is in the cache is not computed again, so an interrupted call can be repeated.

    Args:
        system: ``Li-Si`` or a collection of elements.
        potential: gives the energies.
        settings: see `HullSettings`.
        folder: of the cache (default: the user's).
        report: called with the number of phases that are done and of all that have to be done so far.

    Returns:
        a reference with the potential's name; its version holds a hash of the energies.

    Raises:
        ValueError: an element is unknown, or has no phase in the library or none that the potential can compute.
        OSError: the cache cannot be written.
    """
    elements = parse_system(system if isinstance(system, str) else "-".join(system))
    settings = settings or HullSettings()
    work = _Hull(known_phases(elements), potential, settings, PhaseCache(potential, settings.relaxation, folder))
    work.evaluate(report)
    work.require(elements)
    work.relax(sorted(elements), report)
    return work.reference(str(packaged_library().about["version"]))


def known_phases(elements: Collection[str]) -> list[Phase]:
    """The phases of a system with a crystal: those of the library, and those that were rebuilt, see `REBUILT`."""
    return [*packaged_library().phases(elements), *_rebuilt().phases(elements)]


@cache
def _rebuilt() -> PhaseLibrary:
    return PhaseLibrary(REBUILT)


def missing_phases(elements: Collection[str]) -> list[str]:
    """Formulas on the hull of the packaged table (CHGNet) of which no crystal is known: no other hull has them."""
    hull = Stability(packaged_reference(DEFAULT), elements)
    stable = {entry.composition.reduced_formula for entry in hull.diagram.stable_entries}
    return sorted(stable - {phase.formula for phase in known_phases(elements)})


class _Hull:
    """The phases of one system on their way."""

    def __init__(
        self, phases: Sequence[Phase], potential: Potential, settings: HullSettings, cache: PhaseCache
    ) -> None:
        self.phases = {phase.material_id: phase for phase in phases}
        self.potential, self.settings, self.cache = potential, settings, cache
        self.problems: dict[str, str] = {}  # of the potential, by chemical system
        self.judged = {
            name: found for name, phase in self.phases.items() if (found := cache.get(name, phase.crystal)) is not None
        }

    def evaluate(self, report: Callable[[int, int], None]) -> None:
        """Single points of those that have none."""
        waiting = [phase for name, phase in self.phases.items() if name not in self.judged]
        for some in _parts(waiting):
            for phase, result in zip(some, self.potential.evaluate([one.crystal for one in some]), strict=True):
                if result.problem:
                    self.problems.setdefault("-".join(sorted(set(phase.crystal.symbols))), result.problem)
                else:
                    self._keep(_single_point(phase, result.energy))
            report(len(self.judged), len(self.phases))

    def require(self, elements: Collection[str]) -> None:
        """Check that every element has a phase with an energy; raises ValueError with what the potential said."""
        found = self.reference("")
        for element in sorted((set(elements) - found.elements) & set(self.problems)):
            raise ValueError(
                f"{self.potential.name} cannot compute {element} ({self.problems[element]}): choose another potential, "
                "or leave the element out"
            )
        found.require(elements)

    def relax(self, elements: Sequence[str], report: Callable[[int, int], None]) -> None:
        """Relax until no phase that is still a single point can reach the hull."""
        while waiting := self._could_matter(elements):
            some, all_of_them = next(_parts(waiting)), self._tried() + len(waiting)

            def finished(index: int, result: Relaxation, some: list[Phase] = some, total: int = all_of_them) -> None:
                self._keep(_relaxed(self.judged[some[index].material_id], result))
                report(self._tried(), total)

            relax([one.crystal for one in some], self.potential, self.settings.relaxation, report=finished)

    def reference(self, version: str) -> Reference:
        """The phases that have an energy."""
        rows = [
            (name, self.phases[name].formula, one.energy, one.volume_per_atom, one.converged)
            for name, one in sorted(self.judged.items())
        ]
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        energies = frame[["material_id", "energy_per_atom"]].round(6).to_csv(index=False)
        digest = hashlib.blake2b(energies.encode(), digest_size=4).hexdigest()
        return Reference(NAME, self.potential.name, f"{version}, {digest}", add_chemsys_column(frame))

    def _could_matter(self, elements: Sequence[str]) -> list[Phase]:
        """Single points that could reach the hull, those lowest above it first."""
        hull = Stability(self.reference(""), elements)
        above = {
            name: hull.decomposition(self.phases[name].formula, one.energy).e_d
            for name, one in self.judged.items()
            if not one.reason
        }
        near = [name for name, e_d in above.items() if e_d < self.settings.gain]
        return [self.phases[name] for name in sorted(near, key=lambda name: (round(above[name], 6), name))]

    def _tried(self) -> int:
        """How many have been relaxed, or could not be."""
        return sum(bool(one.reason) for one in self.judged.values())

    def _keep(self, phase: JudgedPhase) -> None:
        self.judged[phase.material_id] = phase
        self.cache.put(phase)


def _single_point(phase: Phase, energy: float) -> JudgedPhase:
    crystal = phase.crystal
    return JudgedPhase(
        material_id=phase.material_id,
        start=crystal.identity,
        energy_single_point=energy,
        energy=energy,
        volume_per_atom=crystal.volume / len(crystal),
    )


def _relaxed(before: JudgedPhase, result: Relaxation) -> JudgedPhase:
    """A phase after its relaxation; one that failed keeps its single point."""
    tried = replace(before, reason=str(result.reason))
    if not may_be_ranked(result) or not np.isfinite(result.energy_final):
        return tried
    return replace(
        tried,
        energy=result.energy_final,
        volume_per_atom=result.final.volume / len(result.final),
        converged=result.converged,
        crystal=result.final.to_bytes().hex(),
    )


def _parts(phases: Sequence[Phase]) -> Iterator[list[Phase]]:
    """Phases in their order, in parts of about `PART_ATOMS` atoms."""
    part, atoms = list[Phase](), 0
    for phase in phases:
        if part and atoms + phase.n_atoms > PART_ATOMS:
            yield part
            part, atoms = [], 0
        part, atoms = [*part, phase], atoms + phase.n_atoms
    if part:
        yield part
