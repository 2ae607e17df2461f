"""What a round consists of: candidates to be made, in tasks that are made, relaxed, analysed and stored together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.diffusion.sampler import Template
from model.generators.interface import Role
from model.generators.registry import GENERATORS
from model.relaxation.relax import RelaxSettings
from model.settings import Settings
from search.storage.rows import PendingRow


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a candidate comes from; columns of the same names.

    Attributes:
        cell_formula: of its cell.
        bravais_lattice: type of lattice that it, or what it was made from, was generated in.
        prototype: known compound whose elements were replaced.
        parent: candidate whose framework is filled, or that is changed.
        framework: name of that framework.
        framework_space_group: of the empty host.
        framework_symprec: Å, at which that group was found.
        framework_displacement: Å, the furthest an atom of the host was moved.
        guests: elements that are put into it.
        samples: candidates of this pick of the framework.
    """

    cell_formula: str
    bravais_lattice: str | None = None
    prototype: str | None = None
    parent: str | None = None
    framework: str | None = None
    framework_space_group: str | None = None
    framework_symprec: float | None = None
    framework_displacement: float | None = None
    guests: tuple[str, ...] | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """One crystal to be made.

    Attributes:
        number: its place in its task, from 0.
        generator: name.
        template: what the generator is given.
        settings: of the generator; None if it has none.
        origin: where it comes from.
    """

    number: int
    generator: str
    template: Template
    settings: Settings | None
    origin: Origin

    @property
    def role(self) -> Role:
        """Whether it is new, or guests in a framework."""
        return GENERATORS[self.generator].role

    @property
    def settings_text(self) -> str:
        """Settings as JSON."""
        return "{}" if self.settings is None else self.settings.model_dump_json()


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Candidates that go through all steps together.

    Attributes:
        identity: name of the task and of its part in the results; depends only on configuration, seed and results.
        round: counted from 0.
        candidates: all of the task, or one that goes on alone.
        relaxation: settings of the relaxation.
        found_phases: reduced formula -> energy (eV/atom) of the phases below the reference hull that the search had
            found.
        volume_change: relative change of volume beyond which a filled framework becomes one again.
        max_parent_e_d: E_d (eV/atom) above which a crystal gives no frameworks, because they would not be among those
            that are filled; -inf where none are.
    """

    identity: str
    round: int
    candidates: tuple[Candidate, ...]
    relaxation: RelaxSettings
    found_phases: Mapping[str, float]
    volume_change: float
    max_parent_e_d: float

    def __len__(self) -> int:
        return len(self.candidates)

    def only(self, number: int) -> Task:
        """The same task with one of its candidates."""
        return replace(self, candidates=self.candidates[number : number + 1])

    def name_of(self, candidate: Candidate, *, before: int = 0) -> str:
        """Name of a candidate, or of the one that stands so many places before it in the task."""
        return candidate_name(self.identity, candidate.number - before)

    @property
    def templates(self) -> list[Template]:
        """What the generators are given."""
        return [one.template for one in self.candidates]

    @property
    def generators(self) -> list[str]:
        """Names of the candidates' generators."""
        return [one.generator for one in self.candidates]

    @property
    def settings(self) -> list[Settings | None]:
        """Settings of these."""
        return [one.settings for one in self.candidates]

    @property
    def guests(self) -> list[np.ndarray | None]:
        """Masks (n,) of the atoms that go into a framework; None for new crystals."""
        return [one.template.guest if one.role == Role.FROM_HOST else None for one in self.candidates]


def candidate_name(task: str, number: int) -> str:
    """Name of a task's candidate."""
    return f"{task}-{number:02d}"


def pending_rows(tasks: Iterable[Task], *, with_settings: bool = True) -> Sequence[PendingRow]:
    """Candidates before they have results, as far as planning needs them; settings only where something is tuned."""
    return [
        PendingRow(
            task=task.identity,
            round=task.round,
            role=one.role,
            generator=one.generator,
            cell_formula=one.origin.cell_formula,
            bravais_lattice=one.origin.bravais_lattice,
            parent=one.origin.parent,
            framework=one.origin.framework,
            samples=one.origin.samples,
            generator_settings=one.settings_text if with_settings else "{}",
            relaxation_settings=task.relaxation.model_dump_json() if with_settings else "{}",
        )
        for task in tasks
        for one in task.candidates
    ]
