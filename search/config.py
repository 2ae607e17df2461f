"""Configuration of a search, checked before any work starts. docs/configuration.md explains every field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pymatgen.core import Element

from model.crystals.composition import parse_system
from model.crystals.lattice import BRAVAIS, LatticeRanges
from model.crystals.screening import ScreenSettings
from model.diffusion.sampler import AncestralSettings, HeunSettings, PredictorCorrectorSettings
from model.generation.framework import DEFAULT_TOLERANCES
from model.generators.registry import GENERATORS, starting_from
from model.generators.roles import Start
from model.potentials.calculators import CalculatorSettings
from model.potentials.catalog import DEFAULT, PotentialEntry, find_entry
from model.relaxation.polish import PolishSettings
from model.relaxation.relax import RelaxSettings
from model.settings import Settings
from model.thermodynamics.own_hull import HullSettings
from model.verification.settings import VerifySettings
from search.compositions import Compositions
from search.storage.crystal_files import is_identifier

SAMPLERS = {"predictor-corrector": PredictorCorrectorSettings, "heun": HeunSettings, "ancestral": AncestralSettings}
NAME, CALCULATOR = "by name", "by import path"  # the ways to choose a potential
Range = tuple[float, float]
GROUP_OF_FIELDS = "must be a group of fields, one `key: value` per line"
Group = TypeVar("Group", bound=Settings)


class Lattices(Settings):
    """Random search over Bravais lattices."""

    bravais: tuple[str, ...] = BRAVAIS
    ranges: LatticeRanges = LatticeRanges()
    volume_per_atom: float | None = Field(None, gt=0)  # Å³; default: estimated from the reference phases

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
    """Extraction of frameworks: removing guests and restoring symmetry."""

    guests: tuple[str, ...] | None = None  # default: chosen automatically (largest spread of local environments)
    tolerances: tuple[tuple[float, float], ...] = DEFAULT_TOLERANCES  # (symprec Å, angle degrees)
    files: tuple[str, ...] = ()  # hosts available from the start: crystal files, folders of them, identifiers
    known: int = Field(40, ge=0)  # number of hosts from the library of known phases, the likeliest ones
    guest_count_range: int = Field(1, ge=0)  # largest difference in guest atoms from a filling that was found
    volume_change: float = Field(0.05, gt=0)  # relative; above this, a filled host gives a new framework

    @field_validator("guests")
    @classmethod
    def _elements(cls, value: Sequence[str] | None) -> Sequence[str] | None:
        if value is not None and not value:
            raise ValueError("an empty list is not allowed; omit guests to have them chosen automatically")
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


class LibrarySettings(Settings):
    """Known phases that a search does not see at all, not even as competing phases; see also ``blind``."""

    without_systems: tuple[str, ...] = ()  # chemical systems (Li-P-S) whose phases, and their systems', are not used
    without_formulas: tuple[str, ...] = ()  # formulas whose phases are not used

    @field_validator("without_systems")
    @classmethod
    def _systems(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for system in value:
            parse_system(system)
        return value


class ReferenceSettings(Settings):
    """The competing phases against which E_d is measured."""

    kind: Literal["auto", "packaged", "library", "table", "file", "mp"] = "auto"  # auto: packaged, or else library
    path: str | None = None  # table: of `hostguide reference build`; file: JSON of entries or a patched phase diagram
    potential: str | None = None  # for kind `file`: the potential of its energies, for example chgnet-0.3.0
    allow_pickle: bool = False  # a pickle can run any code; only for files you made yourself

    @model_validator(mode="after")
    def _path(self) -> ReferenceSettings:
        needed = {"file": ("path", "potential"), "table": ("path",)}.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"kind: {self.kind} needs {' and '.join(needed)}; {' and '.join(missing)} must be given")
        extra = [name for name in ("path", "potential") if name not in needed and getattr(self, name) is not None]
        if extra:
            raise ValueError(f"{' and '.join(extra)} has no effect with kind: {self.kind}; remove it or change kind")
        return self


class StopSettings(Settings):
    """When to stop before all rounds are done. All may be changed on resume, as none affects a round."""

    patience_rounds: int | None = Field(None, ge=1)  # rounds without a lower E_d of any formula in energy_window
    target: float | None = None  # eV/atom; one relaxed crystal at or below it ends the search
    candidates: int | None = Field(None, ge=1)
    cpu_seconds: float | None = Field(None, gt=0)  # total of all actors, from the stored timings
    max_cost: float | None = Field(None, gt=0)  # of this time, in the currency of `cost_per_actor_hour`
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
    candidates_per_round: int = Field(32, ge=1)  # once hosts or parents exist; before that, only the `new_share` of it
    new_share: float = Field(0.5, gt=0, le=1)  # share of new crystals without feedback; 1: only new ones
    samples: int = Field(3, ge=1)  # candidates per framework and pick
    rounds_ahead: int = Field(1, ge=0)  # rounds planned before the latest results are in, so that no core is idle
    feedback: bool = True  # False: all arms are treated equally, E_d has no influence
    energy_window: float = Field(0.05, gt=0)  # eV/atom, E_d below which a crystal is worth finding
    quantile: float = Field(0.1, gt=0, le=1)  # while few lie in the window, this best share is rewarded
    early_stop_factor: float | None = Field(2.0, ge=1)  # relaxations end early above this many reward thresholds
    exploration_rate: float = Field(0.05, ge=0, le=1)  # probability that a pick goes to the arm tried least
    prior_weight: float = Field(16.0, gt=0)  # number of candidates as which the results of related arms count
    new_prior_weight: float = Field(4.0, gt=0)  # the same for the probability of being new
    evaluation_cost: float = Field(0.3, ge=0)  # one evaluation of the score network in evaluations of the potential
    posterior_concentration: float = Field(8.0, gt=0)  # factor by which the variance of drawn rates is reduced
    max_parents: int = Field(200, ge=1)  # number of frameworks, and of crystals to mutate, that compete
    batch: int = Field(8, ge=1, le=100)  # crystals per task
    stop: StopSettings = StopSettings()


class Tuning(Settings):
    """Settings to tune: field -> lowest and highest value (default: none)."""

    sampling: dict[str, dict[str, Range]] = Field({})  # by generator
    relaxation: dict[str, Range] = Field({})
    samples: tuple[int, int] | None = None  # instead of policy.samples

    @field_validator("sampling", "relaxation", "samples")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        for low, high in _ranges_in(value):
            if not 0 <= low < high:
                raise ValueError(f"must be [lowest, highest] with 0 <= lowest < highest, got [{low:g}, {high:g}]")
        return value

    @property
    def parts(self) -> dict[str, Mapping[str, Range]]:
        """Tunable part -> its ranges; the parts are generators with settings, ``relaxation`` and ``samples``."""
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


def _catalogued(name: str) -> str:
    return find_entry(name).name


def _way_of(potential: Any) -> str:
    return CALCULATOR if isinstance(potential, Mapping | CalculatorSettings) else NAME


# A name of `model.potentials.catalog`, or an ASE calculator.
Potential = Annotated[
    Annotated[str, AfterValidator(_catalogued), Tag(NAME)] | Annotated[CalculatorSettings, Tag(CALCULATOR)],
    Discriminator(_way_of),
]


class ModelSettings(Settings):
    """The networks."""

    weights: str | None = None  # small (default), base, or a .safetensors file of `hostguide train`
    potential: Potential = DEFAULT
    device: Literal["auto", "cpu", "cuda"] = "auto"  # of the generator
    relax_on: Literal["auto", "cpu", "cuda"] = "cpu"  # where crystals are relaxed; auto: on GPUs if there are any

    @property
    def potential_entry(self) -> PotentialEntry:
        """What is known of the potential without loading it."""
        return find_entry(self.potential)


class JudgeSettings(Settings):
    """A second potential that judges the low crystals of a search; see docs/judges.md."""

    potential: Potential
    lowest: int = Field(20, ge=1)  # as many distinct crystals, the lowest by the judge, set the bar for being judged
    gain: float = Field(0.05, gt=0)  # eV/atom that relaxing may lower a crystal by; above the bar by more, none is
    relaxation: RelaxSettings = HullSettings().relaxation
    device: Literal["cpu", "cuda"] = "cpu"


class Resources(Settings):
    """Resources of the machine or cluster to use."""

    relax_actors: int | None = Field(None, ge=1)  # default: one per core, or per GPU with models.relax_on: cuda
    generate_actors: int = Field(1, ge=1)  # on GPUs, if there are any
    judge_actors: int = Field(1, ge=1)  # on GPUs with judge.device: cuda
    task_seconds: float = Field(1800.0, gt=0)  # time limit per call of an actor
    address: str = "local"  # `local`, `auto` or the address of a running Ray cluster


class SearchConfig(Settings):
    """Configuration of a search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0)
    compositions: Compositions
    lattices: Lattices = Lattices()
    blind: bool = False  # known phases of the searched system serve for nothing but the hull
    generators: tuple[str, ...] = Field(
        tuple(name for name, row in GENERATORS.items() if row.by_default), min_length=1
    )  # that compete
    sampling: dict[str, SerializeAsAny[Settings]] = Field({}, validate_default=True)  # settings of each generator
    screening: ScreenSettings = ScreenSettings()
    relaxation: RelaxSettings = RelaxSettings()
    polish: PolishSettings | None = PolishSettings()  # of what is reported; null: nothing is polished
    frameworks: FrameworkSettings = FrameworkSettings()
    library: LibrarySettings = LibrarySettings()
    reference: ReferenceSettings = ReferenceSettings()
    policy: PolicySettings = PolicySettings()
    tuning: Tuning = Tuning()
    models: ModelSettings = ModelSettings()
    judge: JudgeSettings | None = None
    verification: VerifySettings | None = None  # of the best crystals, at the end; null: not done
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
                f"generators: {', '.join(self.generators)} need crystals to start from; "
                f"add one of {', '.join(new)}, or give hosts in frameworks.files to {', '.join(hosts)}"
            )
        return self

    @model_validator(mode="after")
    def _blind_to_hosts(self) -> SearchConfig:
        known = [name for name in self.frameworks.files if is_identifier(name)]
        if self.blind and known:
            raise ValueError(
                f"blind: a blind search uses no known phase of its system as a host, and frameworks.files names "
                f"{', '.join(known)}; remove it, or set blind: false"
            )
        return self

    @model_validator(mode="after")
    def _without_pressure(self) -> SearchConfig:
        tuned = self.tuning.relaxation.get("pressure")
        if tuned or self.relaxation.pressure:
            field, given = ("tuning.relaxation", tuned) if tuned else ("relaxation", self.relaxation.pressure)
            raise ValueError(
                f"{field}.pressure: a search compares energies with phases at zero pressure, not enthalpies (given: "
                f"{given}); remove it, and relax what was found with `hostguide relax --pressure`"
            )
        return self

    @model_validator(mode="after")
    def _another_judge(self) -> SearchConfig:
        if self.judge is not None and find_entry(self.judge.potential) == self.models.potential_entry:
            raise ValueError(
                f"judge.potential: {self.models.potential_entry.name} searches already; choose another to judge it"
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
        """Everything that affects results, as JSON: all fields but resources, verification and length.

        Paths of host files are excluded too; their contents count instead, see `search.planning.campaign.digest`.
        """
        exclude: Any = {"resources": True, "verification": True, "policy": {"rounds", "stop"}, "frameworks": {"files"}}
        return json.dumps(self.model_dump(mode="json", exclude=exclude), sort_keys=True)

    @property
    def builds(self) -> bool:
        """Whether candidates are also made from hosts and crystals, once there are some."""
        return any(GENERATORS[name].start != Start.NOTHING for name in self.generators) and self.policy.new_share < 1

    @property
    def new_per_round(self) -> int:
        """New crystals of a round where feedback does not decide, and of one that has nothing to build on yet."""
        share = self.policy.new_share if self.builds else 1.0
        return max(1, round(self.policy.candidates_per_round * share))

    @property
    def built_per_round(self) -> int:
        """The other candidates per round: filled frameworks and mutated crystals."""
        return self.policy.candidates_per_round - self.new_per_round

    @property
    def candidates(self) -> int:
        """Maximum number of candidates of the search; the first rounds have nothing to build on yet and are smaller."""
        return sum(self.round_size(number) for number in range(self.policy.rounds))

    @property
    def candidates_built(self) -> int:
        """How many of `candidates` are planned from hosts or parents (without feedback)."""
        return self.candidates - self.policy.rounds * self.new_per_round

    def round_size(self, number: int) -> int:
        """Maximum number of candidates of a round."""
        return self.policy.candidates_per_round if number >= self.first_to_build else self.new_per_round

    @property
    def first_to_build(self) -> int:
        """The first round that builds on hosts or crystals."""
        return 0 if self.frameworks.files else self.policy.rounds_ahead + 1


class ProblemsInside(ValueError):
    """Validation errors in the settings of generators: pairs of generator and its errors."""

    def __init__(self, problems: Sequence[tuple[str, ValidationError]]) -> None:
        super().__init__(f"problems in {', '.join(name for name, _ in problems)}")
        self.problems = problems


def check_ranges(group: Settings, ranges: Mapping[str, Range], name: str) -> None:
    """Raise ValueError if a field does not exist, is not a number, or does not accept an end of its range."""
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
    """Copy of settings with other values, validated."""
    whole = {name: round(value) if isinstance(getattr(group, name), int) else value for name, value in values.items()}
    return type(group).model_validate({**group.model_dump(), **whole})
