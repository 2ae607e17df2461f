"""Adding finished VASP calculations to a run: MP2020 corrections, E_d, and the difference from the potential's E_d.

A decomposition energy compares energies of one kind. So DFT energies are measured against a hull of DFT energies: a
table or entries supplied by the user, the Materials Project, or competing phases that were calculated in the same way.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.entries.compatibility import CompatibilityError, MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.vasp import Vasprun

from model.crystals.crystal import Crystal
from model.potentials.catalog import comparable_with
from model.potentials.energies import MP2020_PBE, R2SCAN
from model.symmetry.space_group import space_group
from model.thermodynamics.entries import frame_of_entries
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Stability
from search.dft import FILE
from search.dft.inputs import LINK
from search.storage.paths import RunPath, run_path, write_whole
from search.storage.results import load_results, parquet_bytes
from search.storage.rows import ARROW_CRYSTAL, StoredCrystal, unpack_or_raise

SCHEMA_VERSION = "1"
SCHEMA = pa.schema(
    [
        ("calculation", pa.string()),  # absolute path of the vasprun.xml
        ("candidate", pa.string()),  # empty for a competing phase
        ("formula", pa.string()),  # reduced
        ("n_atoms", pa.int32()),
        ("functional", pa.string()),  # pymatgen's run type: GGA, GGA+U, R2SCAN, ...
        ("converged", pa.bool_()),  # electrons and ions
        ("problem", pa.string()),  # why there is no comparable energy; otherwise empty
        ("energy_raw", pa.float64()),  # eV/atom, VASP's energy without corrections
        ("corrections", pa.map_(pa.string(), pa.float64())),  # name -> eV/atom
        ("energy", pa.float64()),  # eV/atom, corrected
        ("final", ARROW_CRYSTAL),  # final structure of the calculation
        ("space_group", pa.string()),  # of `final`
        ("e_d", pa.float64()),  # eV/atom, DFT
        ("products", pa.map_(pa.string(), pa.float64())),
        ("reference", pa.string()),  # of `e_d`
        ("e_d_potential", pa.float64()),  # eV/atom, of the candidate in the run
        ("gap", pa.float64()),  # eV/atom, e_d - e_d_potential
        ("volume_change", pa.float64()),  # relative to the candidate's structure in the run
        ("same_structure", pa.bool_()),  # whether DFT kept the candidate's structure
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)
OWN = "own calculations"
FAMILIES = {"GGA": MP2020_PBE, "GGA+U": MP2020_PBE, "R2SCAN": R2SCAN}


@dataclass(frozen=True, eq=False, kw_only=True)
class Calculation:
    """One finished calculation.

    Attributes:
        calculation: path of the vasprun.xml.
        candidate: name of the candidate; empty for a competing phase.
        functional: pymatgen's run type.
        converged: electrons and ions.
        problem: why its energy cannot be compared; otherwise empty.
        crystal: final structure.
        energy_raw: eV/atom, VASP's energy without corrections.
        corrections: name -> eV/atom.
    """

    calculation: str
    candidate: str
    functional: str
    converged: bool
    problem: str
    crystal: Crystal
    energy_raw: float
    corrections: dict[str, float] = field(default_factory=dict)

    @property
    def energy(self) -> float:
        """Corrected energy in eV/atom; NaN if it cannot be compared."""
        return float("nan") if self.problem else self.energy_raw + sum(self.corrections.values())

    @property
    def family(self) -> str:
        """Family of functionals whose energies can be compared with each other."""
        return FAMILIES.get(self.functional, self.functional)


def find_vaspruns(folders: Iterable[Path]) -> list[Path]:
    """The vasprun.xml files, plain or gzipped, in these folders and below.

    Raises:
        ValueError: a folder does not exist or contains none.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.exists():
            raise ValueError(f"{folder} does not exist")
        here = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*vasprun*.xml*") if p.is_file())
        if not here:
            raise ValueError(f"{folder} and its subfolders contain no vasprun.xml")
        found += here
    return list(dict.fromkeys(path.resolve() for path in found))


def read_calculation(path: Path) -> Calculation:
    """Read one vasprun.xml and apply the MP2020 corrections to GGA and GGA+U.

    Raises:
        ValueError: the file cannot be read, or is not a finished calculation.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen's warnings; `converged` and `problem` contain what matters
        try:
            run = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
            entry = run.get_computed_entry(inc_structure=True)
        except Exception as error:  # a killed VASP leaves an incomplete file, which can raise anything
            raise ValueError(f"{path} is not a finished VASP calculation: {type(error).__name__}: {error}") from error
        assert isinstance(entry, ComputedStructureEntry)
        functional = str(run.run_type).replace("PBE", "GGA") if run.run_type in ("PBE", "PBE+U") else str(run.run_type)
        entry.parameters["run_type"] = functional
        corrections, problem = _corrections(entry, functional)
    if not run.converged_electronic:
        problem = "the electrons did not converge"
    atoms = len(entry.structure)
    return Calculation(
        calculation=str(path),
        candidate=_candidate(path),
        functional=functional,
        converged=bool(run.converged),
        problem=problem,
        crystal=Crystal.from_pymatgen(entry.structure),
        energy_raw=float(entry.uncorrected_energy) / atoms,
        corrections={name: value / atoms for name, value in corrections.items()},
    )


def _corrections(entry: ComputedStructureEntry, functional: str) -> tuple[dict[str, float], str]:
    """MP2020 corrections in eV, or why the scheme does not apply; none for other functionals."""
    if FAMILIES.get(functional) != MP2020_PBE:
        return {}, ""
    try:
        adjustments = MaterialsProject2020Compatibility().get_adjustments(entry)
    except (CompatibilityError, ValueError) as error:
        reason = str(error).split(" for {")[0].split(" for Entry")[0]
        return {}, f"MP2020 does not apply: {reason}"
    return {one.name: float(one.value) for one in adjustments}, ""


def _candidate(path: Path) -> str:
    """Candidate of a calculation, from the link file in its folder or the one above."""
    for folder in (path.parent, path.parent.parent):
        if (folder / LINK).is_file():
            return str(json.loads((folder / LINK).read_text()).get("candidate", ""))
    return ""


def own_reference(calculations: Sequence[Calculation], family: str) -> Reference | None:
    """The competing phases among these calculations (those without a candidate); None if there are none."""
    phases = [
        {
            "composition": one.crystal.composition.as_dict(),
            "energy": one.energy * len(one.crystal),
            "entry_id": Path(one.calculation).parent.name,
            "structure": one.crystal.to_pymatgen().as_dict(),
        }
        for one in calculations
        if not one.candidate and not one.problem and one.family == family
    ]
    return Reference(OWN, family, "", frame_of_entries(phases)) if phases else None


def why_not(one: Calculation, reference: Reference | None) -> str:
    """Why E_d of a calculation cannot be computed with this reference; empty if it can."""
    if one.problem:
        return one.problem
    if reference is None:
        return f"no competing phase was calculated with {one.functional}"
    if reference.potential not in comparable_with(one.family):  # the potential's own error would not cancel
        return f"{one.functional} cannot be compared with {reference.potential}"
    missing = sorted(set(one.crystal.symbols) - reference.elements)
    return f"the reference has no phase of the element {', '.join(missing)}" if missing else ""


def take_in(
    run: RunPath, calculations: Sequence[Calculation], reference: Reference | None = None
) -> list[dict[str, Any]]:
    """Compute E_d of calculations and add them to the run's dft.parquet.

    A calculation that is read again replaces its row. E_d of stored calculations is computed again too: with
    ``reference`` if given and comparable; without it, for those that used the run's own competing phases.

    Args:
        run: folder of the run.
        calculations: read with `read_calculation`.
        reference: competing phases (default: those among all calculations of the run).

    Returns:
        the rows of these calculations.
    """
    new = {one.calculation for one in calculations}
    old = [row for row in _stored(run / FILE) if row["calculation"] not in new]
    everything = [*(_calculation(row) for row in old), *calculations]
    frame = load_results(run, structures=False).set_index("candidate", drop=False)

    def judged(one: Calculation) -> dict[str, Any]:
        return _row(one, reference or own_reference(everything, one.family), frame)

    kept = [row if _stays(row, reference) else judged(_calculation(row)) for row in old]
    rows = [judged(one) for one in calculations]
    write_whole(run / FILE, parquet_bytes(pa.Table.from_pylist([*kept, *rows], schema=SCHEMA)))
    return rows


def _stays(row: dict[str, Any], reference: Reference | None) -> bool:
    if reference is not None:
        return bool(why_not(_calculation(row), reference))
    return not (row["reference"] or OWN).startswith(OWN)


def _row(one: Calculation, reference: Reference | None, frame: pd.DataFrame) -> dict[str, Any]:
    group = space_group(one.crystal)
    row: dict[str, Any] = {
        "calculation": one.calculation,
        "candidate": one.candidate,
        "formula": one.crystal.formula,
        "n_atoms": len(one.crystal),
        "functional": one.functional,
        "converged": one.converged,
        "problem": one.problem,
        "energy_raw": one.energy_raw,
        "corrections": list(one.corrections.items()),
        "energy": one.energy,
        "final": StoredCrystal.of(one.crystal).record,
        "space_group": group.symbol if group else "P1",
    }
    if reference is not None and not why_not(one, reference):
        row |= _verdict(one, reference)
    if one.candidate in frame.index:
        row |= _beside(one, row.get("e_d"), frame.loc[one.candidate])
    return row


def _verdict(one: Calculation, reference: Reference) -> dict[str, Any]:
    decomposition = Stability(reference, set(one.crystal.symbols)).decomposition(one.crystal.composition, one.energy)
    about = ", ".join(part for part in (reference.potential, reference.version) if part)
    return {
        "e_d": decomposition.e_d,
        "products": list(decomposition.products.items()),
        "reference": f"{reference.name} ({about})",
    }


def _beside(one: Calculation, e_d: float | None, row: pd.Series) -> dict[str, Any]:
    before = unpack_or_raise(row["final"])
    ratio = one.crystal.volume / len(one.crystal) / (before.volume / len(before))
    return {
        "e_d_potential": float(row["e_d"]),
        "gap": None if e_d is None else e_d - float(row["e_d"]),
        "volume_change": ratio - 1,
        "same_structure": bool(StructureMatcher().fit(before.to_pymatgen(), one.crystal.to_pymatgen())),
    }


def _calculation(row: dict[str, Any]) -> Calculation:
    names = ("calculation", "candidate", "functional", "converged", "problem", "energy_raw")
    kept = {name: row[name] for name in names}
    return Calculation(**kept, crystal=unpack_or_raise(row["final"]), corrections=dict(row["corrections"]))


def stored_calculations(run: RunPath) -> list[Calculation]:
    """The stored calculations of a run."""
    return [_calculation(row) for row in _stored(run / FILE)]


def load_dft(run: str | RunPath) -> pd.DataFrame:
    """All DFT calculations of a run as a DataFrame, best E_d first, with pymatgen Structures in ``structure``.

    Raises:
        ValueError: there are none.
    """
    path = run_path(run) / FILE
    if not path.is_file():
        raise ValueError(f"{run} contains no DFT results; run `hostguide dft read FOLDERS --run {run}` first")
    frame = _table(path).to_pandas(maps_as_pydicts="strict").sort_values(["e_d", "calculation"], ignore_index=True)
    frame["structure"] = [unpack_or_raise(value).to_pymatgen() for value in frame["final"]]
    return frame


def _stored(path: RunPath) -> list[dict[str, Any]]:
    return _table(path).to_pylist() if path.is_file() else []


def _table(path: RunPath) -> pa.Table:
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    found = (table.schema.metadata or {}).get(b"schema_version", b"none").decode()
    if found != SCHEMA_VERSION:
        raise ValueError(f"{path} has schema version {found}, but this program reads {SCHEMA_VERSION}: move it away")
    return table
