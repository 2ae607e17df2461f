"""What commands print with `--json`: one model per command, from which the schemas and docs/json.md are made.

Energies are in eV/atom, lengths in Å, forces in eV/Å, pressures in GPa. What is not known is null. Fields may be added;
those that exist keep their names and units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import TypeAdapter, model_validator

from search.reporting.record_base import (
    Atoms,
    Decomposition,
    Energy,
    File,
    Formula,
    Group,
    MaxForce,
    Products,
    Record,
    about,
)
from search.reporting.study_records import (
    Analysed,
    Judged,
    Predicted,
    Reconstructed,
    Screened,
    VoltagesCompared,
)


class FoundCrystal(Record):
    """One of the best crystals of a run."""

    columns: ClassVar[Mapping[str, str]] = {"n_atoms": "atoms", "framework_space_group": "host_group"}

    rank: int = about("1 is the lowest E_d")
    candidate: str = about("its name in the run")
    formula: Formula
    atoms: Atoms
    space_group: Group
    e_d: Decomposition
    energy: Energy
    volume_per_atom: float | None = about("Å³")
    products: Products
    role: str = about("new, or from_host: guests in a framework")
    generator: str = about("what placed its atoms")
    parent: str | None = about("candidate whose framework was filled, or that was changed")
    host_group: str | None = about("space group of the empty host")
    polished: bool | None = about("relaxed to small forces, and moved onto the highest group that costs no energy")
    saddle_fall: float | None = about("above 0: energy by which it fell from a saddle point, eV/atom")
    potential: str = about("of the energies")
    reference: str = about("of E_d")
    file: File = None


class SearchEnd(Record):
    """How a search ended."""

    run: str = about("its folder or address")
    finished: bool = about("false: it was stopped, and the same command resumes it")
    reason: str | None = about("why it ended before all rounds were done")
    candidates: int = about("stored in all")
    best: list[FoundCrystal]


class Progress(Record):
    """What a search has done so far."""

    run: str = about("its folder or address")
    state: str = about("running, finished, stopped, killed, or unknown (it has not begun)")
    doing: str = about("what it does if it runs")
    process: str | None = about("that runs it, or did so last")
    changed: str | None = about("when that process last said what it does, ISO 8601")
    candidates: int = about("stored")
    expected: int | None = about("of the whole search, at most")
    statuses: dict[str, int] = about("stored candidates by status")
    reasons: dict[str, int] = about("why candidates were not relaxed")
    round: int | None = about("last one with a stored candidate, counted from 1")
    minutes_left: float | None = about("from the rate since the last start; null if it does not run")
    actors: dict[str, dict[str, int]] = about("step -> actors that are busy, and batches that wait")
    notes: list[str] = about("messages since the last start")
    best: list[FoundCrystal]


class Cell(Record):
    """Cells of one formula."""

    formula: Formula
    atoms: list[int] = about("atoms of each cell")
    volume_per_atom: float = about("at which crystals are made, Å³")


class Plan(Record):
    """What a search would do."""

    name: str
    elements: list[str]
    seed: int
    cells: int = about("in all")
    formulas: list[Cell]
    generators: list[str]
    guests: list[str] | None = about("null: chosen automatically")
    potential: str
    reference: str = about("name, potential and version")
    phases: int = about("in the reference")
    on_hull: list[str] = about("stable phases of the reference")
    rounds: int
    candidates: int = about("at most")
    minutes: float = about("estimated time on one core")


class Evaluated(Record):
    """A single point."""

    name: str = about("of the crystal: its file, and its number in it")
    formula: str
    atoms: Atoms
    energy: Energy
    e_d: Decomposition
    products: Products
    e_d_missing: str = about("why there is no E_d")
    max_force: MaxForce
    pressure_gpa: float | None = about("positive: the crystal tends to expand")
    magnetic_moment: float | None = about("of the cell, μB")
    problem: str = about("why it could not be evaluated")


class Relaxed(Record):
    """A relaxed crystal."""

    name: str = about("of the crystal: its file, and its number in it")
    formula: str
    atoms: Atoms
    energy_initial: Energy
    energy_final: Energy
    enthalpy_final: Energy
    e_d: Decomposition
    products: Products
    e_d_missing: str = about("why there is no E_d")
    max_force: MaxForce
    pressure_gpa: float | None
    volume_change_percent: float | None
    space_group: Group
    steps: int
    seconds: float
    outcome: str = about("converged, or why not")
    detail: str
    file: File = None


class Filled(Record):
    """A host with its guests placed, or with its sites ordered."""

    rank: int = about("1 is the lowest energy; with --count 0:4, the only one of its number of guests")
    guests: int = about("atoms of the cell that were placed")
    formula: Formula
    atoms: Atoms
    energy: Energy
    above_best: float = about("energy above that of rank 1, eV/atom")
    space_group: Group
    max_force: MaxForce
    volume_change_percent: float = about("from the host as given")
    voltage: float | None = about("average from the empty host relaxed, against the guest's element, V; one guest only")
    insertion_energy: float | None = about("from the empty host and the guest's element, eV per guest")
    volume_change_from_empty_percent: float | None = about("from the empty host relaxed")
    host_kept: bool | None = about("whether the host is still the framework that was filled (topotactic)")
    step_voltage: float | None = about(
        "with --count 0:4: from the content before it on the hull, V; null if it does not lie on the hull", default=None
    )
    file: File


class Phase(Record):
    """A known phase."""

    columns: ClassVar[Mapping[str, str]] = {"energy_per_atom": "energy"}

    material_id: str
    formula: Formula
    energy: Energy
    above_hull: float = about("eV/atom")
    volume_per_atom: float | None = about("Å³")
    relaxed: bool = about("with the reference's potential; otherwise a single point")


class Calculation(Record):
    """A finished DFT calculation."""

    columns: ClassVar[Mapping[str, str]] = {"gap": "difference"}

    calculation: str = about("its vasprun.xml")
    candidate: str = about("of the run; empty for a competing phase")
    formula: Formula
    space_group: Group
    functional: str
    converged: bool
    energy: Energy
    corrections: dict[str, float] = about("included in energy, eV/atom")
    e_d: Decomposition = None
    e_d_potential: Energy = None
    difference: float | None = about("E_d of DFT less that of the potential, eV/atom", default=None)
    volume_change: float | None = about("relative, from the candidate", default=None)
    same_structure: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, content: Any) -> Any:
        corrections = content.get("corrections") if isinstance(content, Mapping) else None
        return content if corrections is None else {**content, "corrections": dict(corrections)}


class TrainingData(Record):
    """Training data that were written."""

    file: str
    crystals: int = about("kept")
    read: int
    splits: dict[str, int]
    dropped: dict[str, int] = about("reason -> crystals")


class Distortion(Record):
    """A lower crystal that an imaginary mode leads to."""

    space_group: Group
    atoms: Atoms
    fall: float = about("eV/atom below the crystal whose mode was followed")


class Verified(Record):
    """What was found out about a crystal; all but the first fields and the last are null if that failed."""

    name: str = about("of the candidate, or of the crystal in its file")
    formula: Formula
    atoms: Atoms
    space_group: Group = None
    known: str | None = about("identifier of the known phase that it is; null: new", default=None)
    nearest_type: str | None = about("identifier of the known crystal of the most similar type", default=None)
    ion_exchange: bool | None = about("whether exchanging the ions of that crystal gives it", default=None)
    type_text: str | None = about("the same in words", default=None)
    charge_balance: str | None = about("balanced, mixed valence, Zintl phase and so on", default=None)
    oxidation_states: dict[str, float] = about("element -> mean oxidation state; empty if it has none", default={})
    charge_text: str | None = about("both in words", default=None)
    lowest_frequency: float | None = about("THz, negative where imaginary; null without phonons", default=None)
    lowest_at: list[float] | None = about("wave vector of that mode, in reciprocal vectors", default=None)
    imaginary: list[float] = about("THz, imaginary modes at the wave vectors of the supercell", default=[])
    supercell_atoms: int | None = about("atoms of the supercell of the phonons", default=None)
    distorts_to: list[Distortion] = about("lower crystals that imaginary modes lead to", default=[])
    bulk_modulus: float | None = about("GPa", default=None)
    elastically_stable: bool | None = about("whether the elastic constants are positive definite", default=None)
    e_d: Decomposition = None
    error: float | None = about("of E_d, eV/atom", default=None)
    error_source: str | None = about("where the error comes from", default=None)
    similarity: float | None = about("0 to 1, with the measured pattern; null without one", default=None)
    problem: str = about("why it, or its phonons, could not be computed; else empty")
    grade: str = about("worth DFT, known, distorts, doubtful, too high, or failed")
    verdict: str = about("the grade with its reasons, in words")


# command -> what it prints
RECORDS: dict[str, TypeAdapter[Any]] = {
    "search": TypeAdapter(SearchEnd),
    "status": TypeAdapter(Progress),
    "validate": TypeAdapter(Plan),
    "results": TypeAdapter(list[FoundCrystal]),
    "evaluate": TypeAdapter(list[Evaluated]),
    "relax": TypeAdapter(list[Relaxed]),
    "inpaint": TypeAdapter(list[Filled]),
    "analyse": TypeAdapter(Analysed),
    "verify": TypeAdapter(list[Verified]),
    "judge": TypeAdapter(list[Judged]),
    "screen": TypeAdapter(Screened),
    "reference show": TypeAdapter(list[Phase]),
    "reference hull": TypeAdapter(list[Phase]),
    "dft read": TypeAdapter(list[Calculation]),
    "data": TypeAdapter(TrainingData),
    "benchmark reconstruct": TypeAdapter(Reconstructed),
    "benchmark csp": TypeAdapter(Predicted),
    "benchmark electrodes": TypeAdapter(VoltagesCompared),
}


def json_text(command: str, content: Any) -> str:
    """What a command prints with `--json`; ``content`` is a record, or rows with its fields."""
    adapter = RECORDS[command]
    return adapter.dump_json(adapter.validate_python(content), indent=2).decode()


def schema(command: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of what a command prints with `--json`.

    Raises:
        ValueError: the command prints no JSON.
    """
    if command not in RECORDS:
        raise ValueError(f"{command!r} has no --json; choose from {', '.join(RECORDS)}")
    found = RECORDS[command].json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"hostguide {command} --json", **found}
