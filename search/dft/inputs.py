"""Writing crystals of a run, or from files, as VASP inputs compatible with the Materials Project."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pymatgen.core import SETTINGS, Structure
from pymatgen.io.vasp.sets import MPRelaxSet, MPScanRelaxSet, MPScanStaticSet, MPStaticSet, VaspInputSet

from model.crystals.crystal import Crystal
from model.symmetry.space_group import ANGLE_TOLERANCE, REPORTED, SYMPREC, refine, space_group
from search.storage.cif import crystal_name, tolerances
from search.storage.crystal_files import read_crystal
from search.storage.paths import RunPath
from search.storage.ranking import rank
from search.storage.results import load_results
from search.storage.rows import Status, unpack_or_raise

SetName = Literal["mp-gga", "mp-r2scan"]
SETS: dict[tuple[str, bool], type[VaspInputSet]] = {
    ("mp-gga", False): MPRelaxSet,
    ("mp-gga", True): MPStaticSet,
    ("mp-r2scan", False): MPScanRelaxSet,
    ("mp-r2scan", True): MPScanStaticSet,
}
LINK = "hostguide.json"  # in every folder: links it to its candidate
MANIFEST = "manifest.csv"  # lists all folders


@dataclass(frozen=True, eq=False)
class CalculationJob:
    """One crystal to be calculated.

    Attributes:
        name: of its folder: formula, space group, and (if from a run) E_d and candidate.
        crystal: as stored or as in the file, unless it was to be symmetrised.
        about: JSON-compatible data that link the calculation to its candidate.
        moments: (n,) initial magnetic moments, μB; None for those of the input set.
        fixed: (n,) bool, atoms that must not move; None if there are none.
        warnings: what to tell the user about how the file was read.
    """

    name: str
    crystal: Crystal
    about: dict[str, Any]
    moments: np.ndarray | None = None
    fixed: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    @property
    def structure(self) -> Structure:
        """The crystal with moments and fixed atoms as pymatgen's input sets expect them, in the order of the POSCAR."""
        structure = self.crystal.to_pymatgen()
        if self.moments is not None:
            structure.add_site_property("magmom", self.moments.tolist())
        if self.fixed is not None:
            structure.add_site_property("selective_dynamics", [[not fixed] * 3 for fixed in self.fixed.tolist()])
        return structure.get_sorted_structure()

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its inputs from those of other crystals, as in `LINK`; atoms in the order of the POSCAR."""
        properties = self.structure.site_properties
        return {
            "identity": self.crystal.identity,
            "moments": properties.get("magmom"),
            "selective_dynamics": properties.get("selective_dynamics"),
        }


def jobs_of_run(
    run: RunPath,
    *,
    top: int,
    formula: str | None = None,
    e_d_below: float | None = None,
    candidates: Sequence[str] = (),
    symmetrise: bool = False,
) -> list[CalculationJob]:
    """The crystals of lowest E_d of a run, each once, or those that are named.

    Args:
        run: its folder.
        top: maximum number of crystals.
        formula: only this reduced formula.
        e_d_below: eV/atom, only those below.
        candidates: names; if given, the options that select are ignored.
        symmetrise: see `_symmetrised`.

    Raises:
        ValueError: no such candidate, or nothing matches.
    """
    frame = load_results(run, structures=False)
    if candidates:
        frame = _named(frame, candidates)
    else:
        frame = frame if e_d_below is None else frame[frame["e_d"] < e_d_below]
        frame = rank(frame, top=top, formula=formula)
    if frame.empty:
        raise ValueError(f"no relaxed crystal of {run} matches; see `hostguide results {run}`")
    return [_job_of_row(row, run, symmetrise) for row in frame.to_dict("records")]


def job_of_file(path: Path, *, symmetrise: bool = False) -> CalculationJob:
    """A crystal of a file, for example a competing phase or a CONTCAR: its cell, atoms, moments and fixed atoms.

    For a CONTCAR in a folder made by `write_inputs`, the link to the candidate and the initial moments are kept.

    Args:
        path: of the file.
        symmetrise: see `_symmetrised`.

    Raises:
        ValueError: the file cannot be read, its moments are not collinear, or it cannot be symmetrised.
    """
    read = read_crystal(path)
    link = path.with_name(LINK)
    about = json.loads(link.read_text()) if link.is_file() else {"candidate": "", "source": str(path)}
    moments = read.moments if about.get("moments") is None else np.array(about["moments"])
    if moments is not None and moments.ndim > 1:
        raise ValueError(
            f"{path}: its magnetic moments are not collinear, and the input sets of the Materials Project are: "
            "remove the moments from the file, or make them collinear"
        )
    crystal = read.crystal
    if symmetrise:
        if moments is not None or read.fixed is not None:
            lost = "fixed atoms" if moments is None else "magnetic moments"
            raise ValueError(f"{path}: --symmetrise would lose its {lost}; omit it, or remove them from the file")
        crystal, group = _symmetrised(crystal)
    else:
        found = space_group(crystal, REPORTED, -1.0)
        group = found.symbol if found else "P1"
    name = path.parent.name if link.is_file() else f"{crystal.formula}_{group.replace('/', '_')}_{path.stem}"
    about = {**about, "space_group": group}
    return CalculationJob(name, crystal, about, moments=moments, fixed=read.fixed, warnings=read.warnings)


def write_inputs(
    jobs: Sequence[CalculationJob], out: Path, *, kind: SetName, static: bool = False, potcars: str | None = None
) -> list[str]:
    """Write one folder of VASP inputs per job, and a manifest of all.

    If the user has no POTCARs, a POTCAR.spec is written instead, which names the file needed for each element.

    Args:
        jobs: crystals to calculate.
        out: folder in which the job folders are created.
        kind: ``mp-gga`` (GGA, with +U where the Materials Project uses it) or ``mp-r2scan``.
        static: a single point instead of a relaxation.
        potcars: pymatgen's name of the POTCAR release, for example PBE_54 (default: that of the set).

    Returns:
        distinct warnings of pymatgen.

    Raises:
        ValueError: two jobs have the same name, a POTCAR is missing, or a folder contains inputs of another crystal.
    """
    repeated = sorted({job.name for job in jobs if [other.name for other in jobs].count(job.name) > 1})
    if repeated:
        raise ValueError(f"two crystals would use the folder {', '.join(repeated)}: give their files different names")
    for job in jobs:
        _check_free(out / job.name, job)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sets = [_input_set(job, kind, static, potcars) for job in jobs]
    for job, inputs in zip(jobs, sets, strict=True):
        inputs.write_input(out / job.name)
        about = job.about | {"set": kind, "static": static, **job.identity}
        (out / job.name / LINK).write_text(json.dumps(about, indent=2) + "\n")
    rows = [{"folder": job.name, "formula": job.crystal.formula, **job.about, "set": kind} for job in jobs]
    pd.DataFrame(rows).to_csv(out / MANIFEST, index=False)
    return sorted({str(one.message).split("\n")[0] for one in caught if issubclass(one.category, UserWarning)})


def has_potcars() -> bool:
    """Whether pymatgen knows where the user's POTCARs are."""
    return bool(_potcar_folder())


def _potcar_folder() -> str | None:
    return os.environ.get("PMG_VASP_PSP_DIR") or SETTINGS.get("PMG_VASP_PSP_DIR")


def _input_set(job: CalculationJob, kind: SetName, static: bool, potcars: str | None) -> Any:
    options: dict[str, Any] = {} if potcars is None else {"user_potcar_functional": potcars}
    generator = SETS[kind, static](job.structure, **options)
    folder = _potcar_folder()
    if folder:
        SETTINGS["PMG_VASP_PSP_DIR"] = folder  # pymatgen reads the environment only on import
    try:
        return generator.get_input_set(potcar_spec=not folder)
    except OSError as error:
        raise ValueError(
            f"{folder} (PMG_VASP_PSP_DIR) lacks a POTCAR of {job.crystal.formula} for the set {kind}: "
            f"{' '.join(str(error).split())}. "
            "Put it there, choose another release with --potcars, or unset PMG_VASP_PSP_DIR to get a POTCAR.spec."
        ) from error


def _check_free(folder: Path, job: CalculationJob) -> None:
    link = folder / LINK
    if folder.exists() and not link.is_file():
        raise ValueError(f"{folder} exists and was not written by hostguide: choose another --out")
    before = json.loads(link.read_text()) if link.is_file() else {}
    if before and {key: before.get(key) for key in job.identity} != job.identity:
        raise ValueError(f"{folder} contains inputs of another crystal: choose another --out, or remove the folder")


def _named(frame: pd.DataFrame, candidates: Sequence[str]) -> pd.DataFrame:
    known = frame[frame["status"].isin([Status.RELAXED, Status.UNCONVERGED])].set_index("candidate", drop=False)
    missing = [name for name in candidates if name not in known.index]
    if missing:
        raise ValueError(f"the run has no relaxed candidate {', '.join(missing)}; `hostguide results --all` lists them")
    return known.loc[list(candidates)]


def _job_of_row(row: dict[Any, Any], run: RunPath, symmetrise: bool) -> CalculationJob:
    crystal, group = unpack_or_raise(row["final"]), row["space_group"] if isinstance(row["space_group"], str) else "P1"
    if symmetrise:
        crystal, group = _symmetrised(crystal, *tolerances(row))
    name = crystal_name({**row, "space_group": group})
    about = {
        "candidate": row["candidate"],
        "source": str(run),
        "space_group": group,
        "e_d": row["e_d"],
        "energy": row["energy"],
        "potential": row["potential"],
    }
    return CalculationJob(name, crystal, about)


def _symmetrised(
    crystal: Crystal, symprec: float = SYMPREC, angle_tolerance: float = ANGLE_TOLERANCE
) -> tuple[Crystal, str]:
    """The primitive cell on the space group that the crystal has within a tolerance (Å, degrees), and its symbol."""
    refined = refine(crystal, symprec, angle_tolerance)
    return (refined.crystal, refined.space_group.symbol) if refined else (crystal, "P1")
