"""Relaxing thousands of known phases near the hull, in parts: the work can be stopped and resumed at any time.

Candidates of a search are relaxed; compared with single points, their decomposition energies are a few meV/atom too
low. `model.thermodynamics.reference.build_reference_table` replaces single points by the energies computed here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from model.crystals.composition import parse_system
from model.crystals.parquet import read_columns, read_crystals
from model.files import held_alone, written_whole
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.relax import Relaxation, RelaxSettings, relax
from model.settings import Settings
from model.thermodynamics.reference import add_chemsys_column, of_systems

COLUMNS = ("material_id", "formula", "n_atoms", "cell", "atomic_numbers", "frac_coords", "e_above_hull")
SEE = "docs/reference.md"
PART_ATOMS = 600  # a part of this size takes about a minute on one core
MERGED = "relaxed.parquet"
SETTINGS = "settings.json"


class PhaseSettings(Settings):
    """Which phases are relaxed, and how."""

    within: float = Field(0.05, ge=0)  # eV/atom above the hull of single points
    max_atoms: int = Field(250, ge=1)  # in the cell of the file
    relaxation: RelaxSettings = RelaxSettings(fmax=0.01, keep_symmetry=True)


def choose(
    structures: str | Path, settings: PhaseSettings, *, first: Sequence[str] = (), known: str | Path | None = None
) -> pd.DataFrame:
    """Phases to relax: those of the systems in ``first`` and of their sub-systems first, small cells before large ones.

    Args:
        structures: a Parquet file.
        settings: which of its phases.
        first: chemical systems.
        known: a Parquet file with the ``material_id`` of phases to skip.

    Raises:
        ValueError: a file lacks a column, a system has an unknown element, or nothing is chosen.
    """
    elements = [parse_system(system) for system in first]
    frame = read_columns(structures, COLUMNS, see=SEE, filters=[("e_above_hull", "<=", settings.within)])
    frame = add_chemsys_column(frame[frame["n_atoms"] <= settings.max_atoms])
    if known is not None:
        frame = frame[~frame["material_id"].isin(read_columns(known, ["material_id"], see=SEE)["material_id"])]
    if frame.empty:
        other = "" if known is None else f" that {known} does not know"
        raise ValueError(f"{structures} has no phase within {settings.within} eV/atom of the hull{other}")
    return frame.assign(later=~of_systems(frame, elements)).sort_values(["later", "n_atoms", "material_id"])


def relax_phases(
    phases: pd.DataFrame,
    out: str | Path,
    potential: Potential,
    settings: PhaseSettings,
    *,
    share: tuple[int, int] = (1, 1),
    max_seconds: float = np.inf,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Relax the phases that are not in the folder yet, and merge all its results into ``relaxed.parquet``.

    Args:
        phases: from `choose`.
        out: folder of the parts; created if it does not exist.
        potential: always the same for one folder.
        settings: always the same for one folder.
        share: (k, n): relax only the k-th of n parts of the phases, so that n processes can work on one folder.
        max_seconds: time after which no further file is started.
        report: called with the number of finished phases and of all phases of this share.

    Returns:
        what `merge` returns.

    Raises:
        ValueError: the folder was started with another potential or other settings, or another process works on this
            share.
    """
    folder, began = Path(out), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    _same_settings(folder, potential, settings)
    mine = phases[[_share(name, share[1]) == share[0] - 1 for name in phases["material_id"]]]
    lock = folder / f"lock-{share[0]}-of-{share[1]}"
    with held_alone(lock, lambda holder: f"{holder} works on this share ({lock}); give each --share 1/2, 2/2, …"):
        waiting = mine[~mine["material_id"].isin(set(_stored(folder)["material_id"]))]
        done = len(mine) - len(waiting)
        report(done, len(mine))
        for some in _parts(waiting):
            if time.monotonic() - began > max_seconds:
                break
            results = relax(read_crystals(some), potential, settings.relaxation)
            rows = [_row(*pair) for pair in zip(some.itertuples(), results, strict=True)]
            _write(pd.DataFrame(rows), folder / f"part-{some['material_id'].iloc[0]}.parquet")
            done += len(some)
            report(done, len(mine))
    return merge(folder)


def merge(folder: str | Path) -> pd.DataFrame:
    """Write ``relaxed.parquet`` from the parts, and return all rows, including those that did not converge."""
    stored = _stored(Path(folder))
    columns = ["material_id", "energy_per_atom", "volume_per_atom"]
    _write(stored.loc[stored["reason"] == Reason.CONVERGED, columns], Path(folder) / MERGED)
    return stored


def _row(phase: object, result: Relaxation) -> dict[str, object]:
    final = result.final
    return {
        "material_id": phase.material_id,  # type: ignore[attr-defined]
        "formula": phase.formula,  # type: ignore[attr-defined]
        "energy_per_atom": result.energy_final,
        "volume_per_atom": final.volume / len(final),
        "energy_single_point": result.energy_initial,
        "max_force": result.max_force,
        "steps": result.steps,
        "reason": result.reason,
        "lattice": final.lattice.ravel(),
        "atomic_numbers": final.numbers,
        "frac_coords": final.fractional.ravel(),
    }


def _parts(phases: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Runs of phases with about `PART_ATOMS` atoms each."""
    number = phases["n_atoms"].cumsum() // PART_ATOMS
    for _, some in phases.groupby(number.to_numpy(), sort=True):
        yield some


def _share(material_id: str, shares: int) -> int:
    return int.from_bytes(hashlib.blake2b(material_id.encode(), digest_size=4).digest(), "big") % shares


def _stored(folder: Path) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted(folder.glob("part-*.parquet"))]
    empty = pd.DataFrame(columns=["material_id", "energy_per_atom", "volume_per_atom", "reason"])
    return pd.concat(parts, ignore_index=True).drop_duplicates("material_id") if parts else empty


def _write(frame: pd.DataFrame, path: Path) -> None:
    with written_whole(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def _same_settings(folder: Path, potential: Potential, settings: PhaseSettings) -> None:
    relaxation = settings.relaxation.model_dump(mode="json")
    now = {"potential": potential.name, "version": potential.version, "relaxation": relaxation}
    path = folder / SETTINGS
    if not path.exists():
        path.write_text(json.dumps(now, indent=1))
    then = json.loads(path.read_text())
    if then != now:
        raise ValueError(
            f"{folder} was begun with other settings, {json.dumps(then)}: use those of now, {json.dumps(now)}, "
            "in a folder of their own"
        )
