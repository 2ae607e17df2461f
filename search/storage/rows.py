"""The columns of the results. The schema, the columns read for planning and the tables of docs/results.md are derived
from the three row classes in this module; to add a column, add a field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from model.crystals.crystal import Crystal
from model.crystals.matching import packed
from model.generators.roles import Role

if TYPE_CHECKING:
    from model.generation.framework import Framework

SCHEMA_VERSION = "9"
ARROW_CRYSTAL = pa.struct(
    [
        ("lattice", pa.list_(pa.float64(), 9)),  # Å, rows one after the other
        ("fractional", pa.list_(pa.float64())),  # x1 y1 z1 x2 ...
        ("numbers", pa.list_(pa.int16())),
    ]
)
ARROW_FRAMEWORK = pa.struct(
    [
        ("framework", pa.string()),  # name
        ("host", ARROW_CRYSTAL),
        ("guests", pa.map_(pa.string(), pa.int16())),  # that were found in this host
        ("space_group", pa.string()),
        ("space_group_number", pa.int16()),
        ("symprec", pa.float64()),  # Å
        ("angle_tolerance", pa.float64()),  # degrees
        ("displacement", pa.float64()),  # Å, largest displacement of an atom by symmetrisation
        ("fingerprint", pa.binary()),  # neighbour distances of the host, see `model.crystals.matching.packed`
    ]
)
CANDIDATE, ORIGIN, RELAXATION, ANALYSIS, JUDGE, TIME = "candidate", "origin", "relaxation", "analysis", "judge", "time"
CRYSTALS = ("initial", "final", "final_judge")  # columns
Some = TypeVar("Some", bound="PendingRow")


class Status(StrEnum):
    """Outcome of a candidate."""

    RELAXED = "relaxed"
    UNCONVERGED = "unconverged"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StoredCrystal:
    """A crystal in the form in which it is stored, without loss of precision.

    Attributes:
        lattice: 9 numbers, Å, rows one after the other.
        fractional: x1 y1 z1 x2 ...
        numbers: atomic numbers.
    """

    lattice: Sequence[float]
    fractional: Sequence[float]
    numbers: Sequence[int]

    @classmethod
    def of(cls, crystal: Crystal) -> StoredCrystal:
        """From a crystal; inverse of `crystal`."""
        return cls(crystal.lattice.ravel().tolist(), crystal.fractional.ravel().tolist(), crystal.numbers.tolist())

    @property
    def crystal(self) -> Crystal:
        """The crystal."""
        return Crystal(np.asarray(self.lattice).reshape(3, 3), np.asarray(self.fractional), np.asarray(self.numbers))

    @property
    def record(self) -> dict[str, Any]:
        """As a dictionary for Arrow."""
        return {"lattice": self.lattice, "fractional": self.fractional, "numbers": self.numbers}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFramework:
    """A symmetric host without its guests, in the form in which it is stored.

    Attributes:
        framework: its name.
        host: the crystal to fill.
        guests: element -> count; the guests it was found with.
        space_group: symbol of the host's space group.
        space_group_number: 1 to 230.
        symprec: tolerance (Å) at which the space group was found.
        angle_tolerance: likewise, degrees.
        displacement: Å, largest displacement of an atom by symmetrisation.
        fingerprint: neighbour distances of the host, see `model.crystals.matching.packed`.
    """

    framework: str
    host: StoredCrystal
    guests: Mapping[str, int]
    space_group: str
    space_group_number: int
    symprec: float
    angle_tolerance: float
    displacement: float
    fingerprint: bytes

    @classmethod
    def of(cls, name: str, found: Framework) -> StoredFramework:
        """From a framework and its name."""
        return cls(
            framework=name,
            host=StoredCrystal.of(found.host),
            guests=found.guests,
            space_group=found.space_group.symbol,
            space_group_number=found.space_group.number,
            symprec=found.space_group.symprec,
            angle_tolerance=found.space_group.angle,
            displacement=found.displacement,
            fingerprint=packed(found.fingerprint),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> StoredFramework:
        """Inverse of `record`."""
        return cls(**{**record, "host": StoredCrystal(**record["host"]), "guests": dict(record["guests"])})

    @property
    def record(self) -> dict[str, Any]:
        """As a dictionary for Arrow."""
        return {name.name: getattr(self, name.name) for name in fields(self)} | {"host": self.host.record}


def column(kind: pa.DataType, group: str, about: str, *, unit: str = "", required: bool = False) -> Any:
    """A dataclass field that is a column.

    Args:
        kind: type in the file.
        group: of columns that share a table in docs/results.md.
        about: meaning of the column, for that table.
        unit: likewise.
        required: whether every candidate has it; otherwise the default is None.
    """
    metadata = {"kind": kind, "group": group, "about": about, "unit": unit}
    return field(default=MISSING if required else None, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRow:
    """A candidate without results; the columns that planning needs."""

    task: str = column(pa.string(), CANDIDATE, "name of its task and of its file", required=True)
    round: int = column(pa.int32(), CANDIDATE, "counted from 0", required=True)
    role: Role = column(pa.string(), CANDIDATE, "`new`, or `from_host`: guests in a framework", required=True)
    generator: str = column(pa.string(), CANDIDATE, "what placed its atoms, see [policy.md](policy.md)", required=True)
    cell_formula: str = column(
        pa.string(),
        CANDIDATE,
        "atoms of the cell: for a new crystal, the cell that was requested; for one from a host, host and guests in "
        "the framework's (primitive) cell",
        required=True,
    )
    bravais_lattice: str | None = column(
        pa.string(),
        ORIGIN,
        "Pearson symbol of the Bravais lattice in which it, or its parent, was generated, for example `cF`",
    )
    parent: str | None = column(
        pa.string(), ORIGIN, "candidate whose framework was filled, or that was modified (`mutation`, `mode`)"
    )
    framework: str | None = column(pa.string(), ORIGIN, "name of that framework")
    samples: int | None = column(pa.int32(), ORIGIN, "number of candidates when this framework was chosen")
    generator_settings: str = column(pa.string(), CANDIDATE, "settings of the generator as JSON", required=True)
    relaxation_settings: str = column(pa.string(), CANDIDATE, "settings of the relaxation as JSON", required=True)

    @classmethod
    def from_record(cls: type[Some], record: Mapping[str, Any]) -> Some:
        """From a table row as returned by Arrow, with all columns; see `rows_of`."""
        return cls(**{**record, "role": Role(record["role"])})

    @property
    def record(self) -> dict[str, Any]:
        """As a dictionary for Arrow."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow(PendingRow):
    """The columns that planning and progress need; driver and planner see only these."""

    candidate: str = column(pa.string(), CANDIDATE, "name of the crystal, see above", required=True)
    formula: str = column(pa.string(), CANDIDATE, "reduced formula", required=True)
    n_atoms: int = column(pa.int32(), CANDIDATE, "atoms in the cell", required=True)
    status: Status = column(
        pa.string(), CANDIDATE, "`relaxed`, `unconverged`, `rejected` or `failed`, see below", required=True
    )
    reason: str = column(pa.string(), CANDIDATE, "why it is not `relaxed`; otherwise empty", required=True)
    evaluations: int | None = column(
        pa.int32(), CANDIDATE, "of the score model, for all crystals of the task made with the same settings"
    )
    final: StoredCrystal | None = column(ARROW_CRYSTAL, RELAXATION, "crystal as relaxed", unit="Å")
    energy: float | None = column(pa.float64(), RELAXATION, "of `final`", unit="eV/atom")
    volume_per_atom: float | None = column(pa.float64(), RELAXATION, "of `final`", unit="Å³")
    steps: int | None = column(pa.int32(), RELAXATION, "of the optimizer")
    n_independent_atoms: int | None = column(
        pa.int32(), RELAXATION, "atoms computed in each step: one per orbit if symmetry was kept, otherwise all"
    )
    space_group: str | None = column(pa.string(), ANALYSIS, "symbol, of `final`")
    polished: bool | None = column(
        pa.bool_(),
        RELAXATION,
        "whether `final` was [polished](relaxation.md#polishing-what-is-reported): relaxed to small forces, shaken, "
        "and moved onto the highest space group that costs no energy",
    )
    duplicate_of: str | None = column(
        pa.string(),
        ANALYSIS,
        "an earlier candidate with the same structure, of the same task or polished in an earlier one",
    )
    e_d: float | None = column(
        pa.float64(), ANALYSIS, "decomposition energy: above (+) or below (−) the reference hull", unit="eV/atom"
    )
    frameworks: Sequence[StoredFramework] | None = column(
        pa.list_(ARROW_FRAMEWORK),
        ANALYSIS,
        "list of symmetric hosts found in it, see below. They are extracted from new crystals, and from filled "
        "frameworks whose volume changed, but only if they might still be filled: not above the E_d of the "
        "`policy.max_parents` best ones, and not at all in searches that fill none",
    )
    fingerprint: bytes | None = column(
        pa.binary(),
        ANALYSIS,
        "mean and standard deviation over the atoms of each element of the distances to the 12 nearest atoms of each "
        "element (Å, 16-bit floats): what the search compares crystals by",
    )
    final_judge: StoredCrystal | None = column(ARROW_CRYSTAL, JUDGE, "crystal as the judge relaxed it", unit="Å")
    fingerprint_judge: bytes | None = column(pa.binary(), JUDGE, "as `fingerprint`, of `final_judge`")
    seconds_generate: float | None = column(
        pa.float64(), TIME, "wall time of the batch divided by its number of crystals", unit="s"
    )
    seconds_relax: float | None = column(
        pa.float64(), TIME, "share of the wall time of the batch's relaxation, by atoms and steps", unit="s"
    )
    seconds_analyse: float | None = column(pa.float64(), TIME, "symmetry, frameworks and E_d", unit="s")
    e_d_judge: float | None = column(
        pa.float64(),
        JUDGE,
        "decomposition energy by the judge, against its own hull; after relaxation by the judge where that could bring "
        "it below the bar. Empty if the judge was not asked",
        unit="eV/atom",
    )
    seconds_judge: float | None = column(pa.float64(), TIME, "judging, of those that were judged", unit="s")

    @classmethod
    def from_record(cls: type[Some], record: Mapping[str, Any]) -> Some:
        """From a table row as returned by Arrow, with all columns; see `rows_of`."""
        crystals = {name: _crystal(record[name]) for name in CRYSTALS if name in record}
        frameworks = record["frameworks"]
        found = None if frameworks is None else [StoredFramework.from_record(one) for one in frameworks]
        states = {"role": Role(record["role"]), "status": Status(record["status"])}
        return cls(**{**record, **crystals, **states, "frameworks": found})

    @property
    def record(self) -> dict[str, Any]:
        """As a dictionary for Arrow."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        crystals = {name: crystal.record for name in CRYSTALS if (crystal := values.get(name)) is not None}
        frameworks = None if self.frameworks is None else [one.record for one in self.frameworks]
        return values | crystals | {"frameworks": frameworks}

    @property
    def seconds(self) -> float:
        """Total time of all actors spent on it."""
        spent = (self.seconds_generate, self.seconds_relax, self.seconds_analyse, self.seconds_judge)
        return sum(seconds or 0.0 for seconds in spent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(HistoryRow):
    """All stored columns of a candidate."""

    detail: str | None = column(pa.string(), CANDIDATE, "the original error message, if there was an error")
    seed: int = column(pa.int64(), CANDIDATE, "determines every random number used for this crystal", required=True)
    prototype: str | None = column(
        pa.string(),
        ORIGIN,
        "ion substitution only: Materials Project identifier of the compound whose elements were replaced",
    )
    framework_space_group: str | None = column(pa.string(), ORIGIN, "of the empty host")
    framework_symprec: float | None = column(pa.float64(), ORIGIN, "tolerance at which that group was found", unit="Å")
    framework_displacement: float | None = column(
        pa.float64(), ORIGIN, "largest displacement of a host atom during symmetrisation", unit="Å"
    )
    guests: Sequence[str] | None = column(
        pa.list_(pa.string()), ORIGIN, "elements that were removed (new crystals) or inserted (from a host)"
    )
    initial: StoredCrystal | None = column(ARROW_CRYSTAL, RELAXATION, "crystal as generated", unit="Å")
    energy_initial: float | None = column(pa.float64(), RELAXATION, "of `initial`", unit="eV/atom")
    max_force_initial: float | None = column(
        pa.float64(), RELAXATION, "of `initial`: largest of the forces and of the scaled stress", unit="eV/Å"
    )
    max_force: float | None = column(pa.float64(), RELAXATION, "the same of `final`", unit="eV/Å")
    pressure: float | None = column(
        pa.float64(), RELAXATION, "of `final`; positive: the crystal tends to expand", unit="GPa"
    )
    converged: bool | None = column(
        pa.bool_(), RELAXATION, "whether `max_force` fell below `fmax`, and energy and volume settled"
    )
    polish_fall: float | None = column(
        pa.float64(), RELAXATION, "by how much polishing lowered the energy", unit="eV/atom"
    )
    saddle_fall: float | None = column(
        pa.float64(),
        RELAXATION,
        "above 0: the symmetric crystal was a saddle point, and the energy fell by this much on the way down from it; "
        "`final` is what it fell to",
        unit="eV/atom",
    )
    potential: str = column(pa.string(), RELAXATION, "potential that computed the energies", required=True)
    score_model: str | None = column(
        pa.string(), CANDIDATE, "name and content hash of the score model's weights; empty if it was not used"
    )
    space_group_number: int | None = column(pa.int16(), ANALYSIS, "1 to 230")
    symprec: float | None = column(
        pa.float64(),
        ANALYSIS,
        "tolerance at which the group was found: 0.01 for polished crystals; 0.1, as in the papers, for others",
        unit="Å",
    )
    angle_tolerance: float | None = column(
        pa.float64(), ANALYSIS, "likewise; 10, as in the papers; −1: derived from `symprec`", unit="degrees"
    )
    e_d_with_found: float | None = column(
        pa.float64(),
        ANALYSIS,
        "the same, against a hull that also contains the phases that the search had found below the reference hull "
        "when the task was planned. The hull of `e_d` never changes during a search; that of this column does",
        unit="eV/atom",
    )
    known: str | None = column(
        pa.string(),
        ANALYSIS,
        "identifier of the phase of the [library](reference.md#the-library-of-known-phases) that it is; empty if new",
    )
    products: Mapping[str, float] | None = column(
        pa.map_(pa.string(), pa.float64()),
        ANALYSIS,
        "dictionary: phase on the hull → fraction of the *atoms* in it; sums to 1",
    )
    single_points: Sequence[str] | None = column(
        pa.list_(pa.string()),
        ANALYSIS,
        "those of `products` that the potential did not relax: their energies are some meV/atom too high, and `e_d` is "
        "too low; marked * in tables",
    )
    judge: str | None = column(pa.string(), JUDGE, "the potential that judged it")
    e_d_judge_first: float | None = column(
        pa.float64(), JUDGE, "the same as `e_d_judge`, of `final` as the search left it", unit="eV/atom"
    )
    energy_judge: float | None = column(pa.float64(), JUDGE, "of `final_judge`, by the judge", unit="eV/atom")
    products_judge: Mapping[str, float] | None = column(
        pa.map_(pa.string(), pa.float64()), JUDGE, "as `products`, on the hull of the judge"
    )
    e_d_expected: float | None = column(
        pa.float64(),
        JUDGE,
        "what was expected of the judge before it was asked, from what it had said of others",
        unit="eV/atom",
    )
    e_d_expected_error: float | None = column(pa.float64(), JUDGE, "standard deviation of that", unit="eV/atom")
    reference: str = column(pa.string(), ANALYSIS, "name, potential and version of the reference", required=True)


def names(kind: type[PendingRow]) -> list[str]:
    """Column names of a kind of row."""
    return [one.name for one in fields(kind)]


def schema(kind: type[PendingRow]) -> pa.Schema:
    """Arrow schema of a kind of row."""
    columns = [(one.name, one.metadata["kind"]) for one in fields(kind)]
    return pa.schema(columns, metadata={"schema_version": SCHEMA_VERSION})


def table_of(rows: Sequence[PendingRow], kind: type[PendingRow]) -> pa.Table:
    """Rows as an Arrow table."""
    return pa.Table.from_pylist([row.record for row in rows], schema=schema(kind))


def rows_of(table: pa.Table, kind: type[Some]) -> list[Some]:
    """The rows of a table.

    Raises:
        TypeError: its columns are not those of the kind.
    """
    wrong = sorted({*table.column_names} ^ {*names(kind)})
    if wrong:
        raise TypeError(
            f"unknown or missing columns: {', '.join(wrong)}; a {kind.__name__} has {', '.join(names(kind))}"
        )
    return [kind.from_record(record) for record in table.to_pylist(maps_as_pydicts="strict")]


def explained(group: str) -> str:
    """The columns of a group as a Markdown table for docs/results.md."""
    lines = [_explained(one) for one in fields(Row) if one.metadata["group"] == group]
    return "\n".join(["| column | unit | meaning |", "|---|---|---|", *lines])


def _explained(one: Field[Any]) -> str:
    unit = one.metadata["unit"]
    return f"| `{one.name}` | {unit}{' ' if unit else ''}| {one.metadata['about']} |"


def _crystal(record: Mapping[str, Any] | None) -> StoredCrystal | None:
    return None if record is None else StoredCrystal(**record)


def unpack(record: Mapping[str, Any] | None) -> Crystal | None:
    """The crystal in a field of a DataFrame; None if the field is empty."""
    return None if record is None else StoredCrystal(**record).crystal


def unpack_or_raise(record: Mapping[str, Any] | None) -> Crystal:
    """`unpack` for a field that is never empty."""
    crystal = unpack(record)
    assert crystal is not None
    return crystal
