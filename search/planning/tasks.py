"""The tasks of a round: batches of candidates that are generated, relaxed, analysed and stored together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.diffusion.sampler import Template
from model.generators.registry import GENERATORS
from model.generators.roles import Role
from model.relaxation.relax import RelaxSettings
from model.settings import Settings
from model.stages import PolishRequest
from model.thermodynamics.candidate_judge import JudgeRequest
from search.storage.rows import PendingRow


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a candidate comes from; the result columns have the same names.

    Attributes:
        cell_formula: of its cell.
        bravais_lattice: Bravais lattice in which it, or the crystal it was made from, was generated.
        prototype: known compound whose elements were replaced.
        parent: candidate whose framework is filled, or which is mutated.
        framework: name of that framework.
        framework_space_group: of the empty host.
        framework_symprec: tolerance (Å) at which that space group was found.
        framework_displacement: Å, largest displacement of an atom when the host was symmetrised.
        guests: elements that are placed into it.
        samples: number of candidates per pick of a framework.
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
    """One crystal to be generated.

    Attributes:
        number: its index in its task, from 0.
        generator: name.
        template: input of the generator.
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
        """Whether it is a new crystal or one built from a host."""
        return GENERATORS[self.generator].role

    @property
    def settings_text(self) -> str:
        """Settings as JSON."""
        return "{}" if self.settings is None else self.settings.model_dump_json()


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Candidates that go through all steps together.

    Attributes:
        identity: name of the task and of its part file in the results.
        round: counted from 0.
        candidates: all of the task, or a single one that is processed alone.
        relaxation: settings of the relaxation.
        polish: which of its crystals are polished; None: none.
        judge: which of its crystals are judged; None: none.
        found_phases: reduced formula -> energy (eV/atom) of the phases below the reference hull that the search had
            found.
        volume_change: relative volume change above which the framework of a filled host is extracted again.
        max_parent_e_d: E_d (eV/atom) above which no frameworks are extracted from a crystal, because they would not be
            among those that are filled; -inf if none are filled.
    """

    identity: str
    round: int
    candidates: tuple[Candidate, ...]
    relaxation: RelaxSettings
    polish: PolishRequest | None
    judge: JudgeRequest | None
    found_phases: Mapping[str, float]
    volume_change: float
    max_parent_e_d: float

    def __len__(self) -> int:
        return len(self.candidates)

    def only(self, number: int) -> Task:
        """The same task with one of its candidates."""
        return replace(self, candidates=self.candidates[number : number + 1])

    def name_of(self, candidate: Candidate, *, before: int = 0) -> str:
        """Name of a candidate, or of the one ``before`` places earlier in the task."""
        return candidate_name(self.identity, candidate.number - before)

    @property
    def templates(self) -> list[Template]:
        """Inputs of the generators."""
        return [one.template for one in self.candidates]

    @property
    def generators(self) -> list[str]:
        """Names of the candidates' generators."""
        return [one.generator for one in self.candidates]

    @property
    def settings(self) -> list[Settings | None]:
        """Settings of the candidates' generators."""
        return [one.settings for one in self.candidates]

    @property
    def guests(self) -> list[np.ndarray | None]:
        """Masks (n,) of the guest atoms in a framework; None for new crystals."""
        return [one.template.guest if one.role == Role.FROM_HOST else None for one in self.candidates]


def candidate_name(task: str, number: int) -> str:
    """Name of a task's candidate."""
    return f"{task}-{number:02d}"


def pending_rows(tasks: Iterable[Task], *, with_settings: bool = True) -> Sequence[PendingRow]:
    """Candidates without results, with the columns that planning needs; settings only if something is tuned."""
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
