"""The whole configuration of a search, checked before any work starts. docs/configuration.md explains every field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidationError, field_validator, model_validator
from pymatgen.core import Element

from model.crystals.composition import CellFormula, from_formulas, from_system, parse_system
from model.crystals.lattice import BRAVAIS, LatticeRanges
from model.crystals.screening import ScreenSettings
from model.diffusion.sampler import AncestralSettings, HeunSettings, PredictorCorrectorSettings
from model.generation.framework import DEFAULT_TOLERANCES
from model.generators.interface import Start
from model.generators.registry import GENERATORS, starting_from
from model.potentials.catalog import DEFAULT, find_entry
from model.relaxation.relax import RelaxSettings
from model.settings import Settings

SAMPLERS = {"predictor-corrector": PredictorCorrectorSettings, "heun": HeunSettings, "ancestral": AncestralSettings}
Range = tuple[float, float]
GROUP_OF_FIELDS = "must be a group of fields, one `key: value` a line"
Group = TypeVar("Group", bound=Settings)


class Compositions(Settings):
    """What to search: a chemical system with constraints, reduced formulas, or exact cells (one of the three)."""

    system: str | None = None  # for example Li-Si
    composition_order: tuple[tuple[str, ...], ...] = ()  # pairs or chains (A, B): more A than B
    fractions: dict[str, tuple[float, float]] = Field({})  # element -> least and largest atomic fraction
    formulas: tuple[str, ...] = ()  # reduced formulas, expanded over Z within the atom budget
    cells: tuple[dict[str, int], ...] = ()  # exact atom counts
    min_atoms: int = Field(2, ge=1)
    max_atoms: int = Field(12, ge=1, le=500)

    @model_validator(mode="after")
    def _one_source(self) -> Compositions:
        given = [name for name in ("system", "formulas", "cells") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of system, formulas and cells; found {' and '.join(given) or 'none'}")
        if self.system is None and (self.composition_order or self.fractions):
            raise ValueError(
                "composition_order and fractions constrain a system and have no meaning with formulas or cells: "
                "drop them, or give a system"
            )
        self.expand()
        return self

    def expand(self) -> list[CellFormula]:
        """All cells to search; raises ValueError when nothing fits the budget."""
        if self.system is not None:
            return from_system(
                self.system,
                max_atoms=self.max_atoms,
                min_atoms=self.min_atoms,
                composition_order=self.composition_order,
                fractions=self.fractions,
            )
        if self.formulas:
            return from_formulas(self.formulas, max_atoms=self.max_atoms, min_atoms=self.min_atoms)
        return list(dict.fromkeys(CellFormula.from_counts(counts) for counts in self.cells))

    @property
    def elements(self) -> tuple[str, ...]:
        """All elements, sorted by symbol."""
        if self.system is not None:
            return tuple(sorted(parse_system(self.system)))
        return tuple(sorted({element for cell in self.expand() for element in cell.elements}))


class Lattices(Settings):
    """Random search over Bravais lattices."""

    bravais: tuple[str, ...] = BRAVAIS
    ranges: LatticeRanges = LatticeRanges()
    volume_per_atom: float | None = Field(None, gt=0)  # Å³; estimated from the reference phases when left out

    @field_validator("bravais")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in BRAVAIS]
        if unknown or not value:
            raise ValueError(
                f"unknown Bravais lattice {', '.join(unknown) or '(none given)'}; choose from {', '.join(BRAVAIS)}"
            )
        return value


class FrameworkSettings(Settings):
    """Guests out, symmetry in."""

    guests: tuple[str, ...] | None = None  # chosen by the spread of local environments when left out
    tolerances: tuple[tuple[float, float], ...] = DEFAULT_TOLERANCES  # (symprec Å, angle degrees)
    files: tuple[str, ...] = ()  # hosts that are there from the start: crystal files, or folders of them
    guest_count_range: int = Field(1, ge=0)  # atoms of a guest more or fewer than a framework was found with
    volume_change: float = Field(0.05, gt=0)  # relative; a filled framework that moved further is filled again

    @field_validator("guests")
    @classmethod
    def _elements(cls, value: Sequence[str] | None) -> Sequence[str] | None:
        if value is not None and not value:
            raise ValueError("an empty list is not allowed; leave guests out to have them chosen")
        for symbol in value or ():
            if not Element.is_valid_symbol(symbol):
                raise ValueError(f"{symbol!r} is not an element; use symbols such as Li")
        return value

    @field_validator("tolerances")
    @classmethod
    def _pairs(cls, value: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
        if not value or any(symprec <= 0 for symprec, _ in value):
            raise ValueError("must list pairs [symprec in Å, angle in degrees] with symprec above 0")
        return value


class ReferenceSettings(Settings):
    """The competing phases that E_d is measured against."""

    kind: Literal["packaged", "table", "file", "mp"] = "packaged"
    path: str | None = None  # table: of `hostguide reference build`; file: JSON of entries or a patched phase diagram
    potential: str | None = None  # for kind `file`: what computed its energies, for example chgnet-0.3.0
    allow_pickle: bool = False  # a pickle runs any code that is in it; only for files you made yourself

    @model_validator(mode="after")
    def _path(self) -> ReferenceSettings:
        needed = {"file": ("path", "potential"), "table": ("path",)}.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind: {self.kind} needs {' and '.join(needed)}; {' and '.join(missing)} must be given")
        extra = [name for name in ("path", "potential") if name not in needed and getattr(self, name) is not None]
        if extra:
            raise ValueError(f"{' and '.join(extra)} has no meaning with kind: {self.kind}; drop it or change kind")
        return self


class StopSettings(Settings):
    """When to end before all rounds are done. Nothing here decides what a round holds, so all may change on resume."""

    patience_rounds: int | None = Field(None, ge=1)  # without a lower E_d of any formula inside policy.energy_window
    target: float | None = None  # eV/atom; one relaxed crystal at or below it ends the search
    candidates: int | None = Field(None, ge=1)
    cpu_seconds: float | None = Field(None, gt=0)  # of all actors together, from the stored timings
    max_cost: float | None = Field(None, gt=0)  # of these, in the currency of `cost_per_actor_hour`
    cost_per_actor_hour: float | None = Field(None, gt=0)
    hours: float | None = Field(None, gt=0)  # wall time since this start

    @model_validator(mode="after")
    def _priced(self) -> StopSettings:
        if (self.max_cost is None) != (self.cost_per_actor_hour is None):
            raise ValueError(
                "max_cost and cost_per_actor_hour must be given together: the budget and the cost of one actor-hour"
            )
        return self


class PolicySettings(Settings):
    """Length and balance of a search."""

    rounds: int = Field(10, ge=1)
    candidates_per_round: int = Field(32, ge=1)  # once there is something to build on; before, their `new_share`
    new_share: float = Field(0.5, gt=0, le=1)  # share of new crystals where feedback does not decide; 1: only new ones
    samples: int = Field(3, ge=1)  # candidates per framework and pick
    rounds_ahead: int = Field(1, ge=0)  # rounds planned before the results of the latest are in, so that no core waits
    feedback: bool = True  # False: every arm counts alike, E_d decides nothing
    energy_window: float = Field(0.05, gt=0)  # eV/atom, E_d below which a crystal is worth finding
    quantile: float = Field(0.1, gt=0, le=1)  # while fewer lie in the window, this best share of all counts instead
    early_stop_factor: float | None = Field(2.0, ge=1)  # relaxations hardly below this many reward thresholds end early
    exploration_rate: float = Field(0.05, ge=0, le=1)  # chance of a pick to go to the arm tried least, whatever its E_d
    prior_weight: float = Field(16.0, gt=0)  # candidates that what is known of relatives counts for
    new_prior_weight: float = Field(4.0, gt=0)  # the same where it is about what is new
    evaluation_cost: float = Field(0.3, ge=0)  # one evaluation of the score network in evaluations of the potential
    posterior_concentration: float = Field(8.0, gt=0)  # how much narrower rates are drawn than they are known
    max_parents: int = Field(200, ge=1)  # frameworks, and crystals to be changed, that compete: the most promising ones
    batch: int = Field(8, ge=1, le=100)  # crystals per task
    stop: StopSettings = StopSettings()

    @property
    def new_per_round(self) -> int:
        """New crystals of a round where feedback does not decide."""
        return max(1, round(self.candidates_per_round * self.new_share))

    @property
    def from_host_per_round(self) -> int:
        """The other candidates of such a round: frameworks filled and crystals changed."""
        return self.candidates_per_round - self.new_per_round


class Tuning(Settings):
    """What is tuned: field -> lowest and highest value. Nothing by default."""

    sampling: dict[str, dict[str, Range]] = Field({})  # by generator
    relaxation: dict[str, Range] = Field({})
    samples: tuple[int, int] | None = None  # in place of policy.samples

    @field_validator("sampling", "relaxation", "samples")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        for low, high in _ranges_in(value):
            if not 0 <= low < high:
                raise ValueError(f"must be [lowest, highest] with 0 <= lowest < highest, got [{low:g}, {high:g}]")
        return value

    @property
    def parts(self) -> dict[str, Mapping[str, Range]]:
        """Everything that can be tuned -> its ranges: a generator's settings, ``relaxation``, ``samples``."""
        samples = {} if self.samples is None else {"samples": self.samples}
        tunable = [name for name, row in GENERATORS.items() if row.is_tunable]
        return {
            **{name: self.sampling.get(name, {}) for name in tunable},
            "relaxation": self.relaxation,
            "samples": samples,
        }

    @property
    def is_empty(self) -> bool:
        """Whether nothing is tuned."""
        return not any(self.parts.values())


def _ranges_in(value: Any) -> Iterator[Range]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _ranges_in(inner)
    elif value:
        yield value


class ModelSettings(Settings):
    """The networks."""

    weights: str | None = None  # small, base, or a .safetensors of `hostguide train`; small when left out
    potential: str = DEFAULT  # a name of `model.potentials.catalog`
    device: Literal["auto", "cpu", "cuda"] = "auto"  # of the generator

    @field_validator("potential")
    @classmethod
    def _known(cls, value: str) -> str:
        return find_entry(value).name


class Resources(Settings):
    """What of the machine or cluster to use."""

    relax_actors: int | None = Field(None, ge=1)  # on CPUs; one per core when left out
    generate_actors: int = Field(1, ge=1)  # one GPU each, if there are any
    task_seconds: float = Field(1800.0, gt=0)  # a call that takes longer is given up
    address: str = "local"  # `local`, `auto` or the address of a running Ray cluster


class SearchConfig(Settings):
    """A search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    compositions: Compositions
    lattices: Lattices = Lattices()
    generators: tuple[str, ...] = Field(tuple(GENERATORS), min_length=1)  # that compete
    sampling: dict[str, SerializeAsAny[Settings]] = Field({}, validate_default=True)  # settings of each generator
    screening: ScreenSettings = ScreenSettings()
    relaxation: RelaxSettings = RelaxSettings()
    frameworks: FrameworkSettings = FrameworkSettings()
    reference: ReferenceSettings = ReferenceSettings()
    policy: PolicySettings = PolicySettings()
    tuning: Tuning = Tuning()
    models: ModelSettings = ModelSettings()
    resources: Resources = Resources()

    @field_validator("generators")
    @classmethod
    def _known_generators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in GENERATORS]
        if unknown:
            raise ValueError(f"unknown generator {', '.join(unknown)}; choose from {', '.join(GENERATORS)}")
        return value

    @field_validator("sampling", mode="before")
    @classmethod
    def _settings_of_generators(cls, value: Any) -> dict[str, Settings]:
        if not isinstance(value, Mapping):
            raise ValueError(GROUP_OF_FIELDS)
        with_settings = {name: row for name, row in GENERATORS.items() if row.default is not None}
        unknown = [str(name) for name in value if name not in with_settings]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} has no settings; choose from {', '.join(with_settings)}")
        checked = {name: row.default for name, row in with_settings.items() if row.default is not None}
        problems: list[tuple[str, ValidationError]] = []
        for name, given in value.items():
            try:
                checked[name] = TypeAdapter(with_settings[name].settings).validate_python(given)
            except ValidationError as error:
                problems.append((name, error))
        if problems:
            raise ProblemsInside(problems)
        return checked

    @model_validator(mode="after")
    def _something_to_begin_with(self) -> SearchConfig:
        new, hosts = starting_from(Start.NOTHING), starting_from(Start.HOST)
        filled = self.frameworks.files and set(self.generators) & set(hosts)
        if not set(self.generators) & set(new) and not filled:
            raise ValueError(
                f"generators: {', '.join(self.generators)} need crystals to begin with; "
                f"add one of {', '.join(new)}, or give hosts in frameworks.files to {', '.join(hosts)}"
            )
        return self

    @model_validator(mode="after")
    def _tunable(self) -> SearchConfig:
        parts = self.tuning.parts
        unknown = [name for name in self.tuning.sampling if name not in parts]
        if unknown:
            known = ", ".join(name for name in parts if name in GENERATORS)
            raise ValueError(f"tuning.sampling: {', '.join(unknown)} cannot be tuned; choose from {known}")
        for name, ranges in self.tuning.sampling.items():
            check_ranges(self.sampling[name], ranges, f"sampling.{name}")
        check_ranges(self.relaxation, self.tuning.relaxation, "relaxation")
        return self

    @model_validator(mode="after")
    def _guests_occur(self) -> SearchConfig:
        elements = self.compositions.elements
        missing = [guest for guest in self.frameworks.guests or () if guest not in elements]
        if missing:
            raise ValueError(
                f"frameworks.guests: {', '.join(missing)} does not occur in {'-'.join(elements)}; "
                f"choose from {', '.join(elements)}"
            )
        if set(self.frameworks.guests or ()) == set(elements):
            raise ValueError(
                f"frameworks.guests: {', '.join(elements)} are all elements of the search; "
                "leave out those that form the framework"
            )
        return self

    def result_defining(self) -> str:
        """Everything that decides results, as JSON: all but resources and the length of the search.

        Of hosts in files it is not their place that counts but what they hold, see `search.planning.campaign.digest`.
        """
        exclude: Any = {"resources": True, "policy": {"rounds", "stop"}, "frameworks": {"files"}}
        return json.dumps(self.model_dump(mode="json", exclude=exclude), sort_keys=True)

    @property
    def candidates(self) -> int:
        """The most that a search can make; the first rounds have nothing to build on yet and are smaller."""
        return sum(self.round_size(number) for number in range(self.policy.rounds))

    @property
    def candidates_from_host(self) -> int:
        """Those of `candidates` that are planned once there is something to build on."""
        return self.candidates - self.policy.rounds * self.policy.new_per_round

    def round_size(self, number: int) -> int:
        """The most candidates that a round can have."""
        first_to_build = 0 if self.frameworks.files else self.policy.rounds_ahead + 1
        builds = number >= first_to_build and not set(self.generators) <= set(starting_from(Start.NOTHING))
        return self.policy.candidates_per_round if builds else self.policy.new_per_round


class ProblemsInside(ValueError):
    """Problems of groups whose fields the registry of generators decides: pairs of generator and its errors."""

    def __init__(self, problems: Sequence[tuple[str, ValidationError]]) -> None:
        super().__init__(f"problems in {', '.join(name for name, _ in problems)}")
        self.problems = problems


def check_ranges(group: Settings, ranges: Mapping[str, Range], name: str) -> None:
    """Raise ValueError if a field does not exist, is not a number or cannot take an end of its range."""
    numbers = [field for field, value in group if isinstance(value, int | float) and not isinstance(value, bool)]
    for field, ends in ranges.items():
        if field not in numbers:
            raise ValueError(f"tuning.{name}.{field}: no numeric field of this name; choose from {', '.join(numbers)}")
        for end in ends:
            try:
                changed(group, {field: end})
            except ValidationError as error:
                message = error.errors()[0]["msg"]
                raise ValueError(f"tuning.{name}.{field}: {end:g} is not allowed ({message})") from error


def changed(group: Group, values: Mapping[str, float]) -> Group:
    """Settings with other values, checked."""
    whole = {name: round(value) if isinstance(getattr(group, name), int) else value for name, value in values.items()}
    return type(group).model_validate({**group.model_dump(), **whole})
