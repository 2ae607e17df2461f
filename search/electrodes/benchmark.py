"""The benchmark of electrodes: voltages and guest sites of hosts whose filled crystals are known.

A pair is a host and an ion. Its voltage is compared with that of the table; where the filled crystal is among the
structures, it is relaxed as well, which splits the difference in two: what the potential makes of the known crystal,
and what our crystal differs from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition

from model.analysis.electrode import average_voltage, supercell_for
from model.analysis.voltage import guest_content, ion_charge
from model.crystals.crystal import Crystal
from model.crystals.matching import same_framework
from model.crystals.parquet import read_columns, read_crystals
from model.potentials.catalog import DEFAULT
from model.relaxation.relax import may_be_ranked
from model.thermodynamics.reference import packaged_reference
from search.electrodes.filling import Filling, FillSettings, HostFiller
from search.electrodes.summary import summarise

METHODS: Mapping[str, Mapping[str, int]] = {  # how the guests are placed: settings that differ from the defaults
    "all": {},
    "inpainting": {"inpainted": 8, "symmetric": 2, "voids": 0},
    "voids": {"inpainted": 0, "symmetric": 0, "voids": 10},
    "random": {"inpainted": 0, "symmetric": 0, "voids": 0, "uniform": 10},
}
COLUMNS = ("host", "working_ion", "formula_charge", "formula_discharge", "average_voltage")
OPTIONAL = ("battery_id", "max_delta_volume")
STRUCTURES = ("material_id", "formula", "cell", "atomic_numbers", "frac_coords")
SEE = "docs/electrodes.md"
SAME_VOLUME = 0.004  # of the relative volume change by which a filled crystal is recognised
WHOLE_UP_TO = 12  # cells of a host in which its guests must be a whole number
SAME_ENERGY = 1e-3  # eV/atom; a crystal up to this much above the known one is as good
MAX_ATOMS_FILLED = 96  # of a host's supercell with its guests


@dataclass(frozen=True, eq=False, kw_only=True)
class Pair:
    """A host and an ion, and what is known of them.

    Attributes:
        name: unique.
        host: in the smallest cell that holds a whole number of guests.
        guest, count: element, and guests in this cell.
        units: formula units of the host in this cell.
        host_formula, filled_formula: reduced.
        split: of the host in the training data, empty if unknown.
        voltage, volume_change: of the table; NaN if it gives none.
        known: identifiers and crystals that may be the filled host.
    """

    name: str
    host: Crystal
    guest: str
    count: int
    units: float
    host_formula: str
    filled_formula: str
    split: str
    voltage: float
    volume_change: float
    known: list[tuple[str, Crystal]]


def load_pairs(
    table: Path,
    structures: Path,
    *,
    ions: Sequence[str] = (),
    max_atoms: int = 40,
    limit: int | None = None,
    names: Sequence[str] | None = None,
) -> list[Pair]:
    """The pairs of a table, in its order or in that of ``names``.

    Args:
        table: Parquet with the columns `COLUMNS` and, if known, `OPTIONAL`.
        structures: Parquet with the columns `STRUCTURES` and, if known, split.
        ions: only these elements.
        max_atoms: of the host as given.
        limit: at most so many pairs.
        names: only these pairs.

    Raises:
        ValueError: a file lacks columns, a pair of ``names`` is unknown, or none is left.
    """
    rows = read_columns(table, COLUMNS, optional=OPTIONAL, see=SEE)
    crystals = read_columns(structures, STRUCTURES, optional=["split"], see=SEE)
    if "battery_id" not in rows:
        rows["battery_id"] = rows["host"] + "_" + rows["working_ion"]
    if names is not None:
        unknown = sorted(set(names) - set(rows["battery_id"]))
        if unknown:
            raise ValueError(f"{table} has no pair {', '.join(unknown[:3])}: give the names of its column battery_id")
        rows = rows.set_index("battery_id", drop=False).loc[list(names)]
    if ions:
        rows = rows[rows["working_ion"].isin(list(ions))]
    by_id = crystals.set_index("material_id", drop=False)
    by_formula = crystals.groupby("formula").indices
    rows = rows[rows["host"].isin(by_id.index)]
    sizes = by_id["atomic_numbers"].map(len)
    rows = rows[rows["host"].map(sizes) <= max_atoms]
    found = [pair for row in rows.to_dict("records") if (pair := _pair(row, by_id, crystals, by_formula)) is not None]
    if not found:
        raise ValueError(
            f"no pair of {table} is left with hosts of {structures} of up to {max_atoms} atoms"
            f"{' and the ions ' + ', '.join(ions) if ions else ''}"
        )
    return found[:limit]


def _pair(
    row: dict[str, Any], by_id: pd.DataFrame, crystals: pd.DataFrame, by_formula: Mapping[str, np.ndarray]
) -> Pair | None:
    """A row as a pair; None if its host contains the guest, or no cell of moderate size holds its guests."""
    guest, unit = row["working_ion"], Composition(row["formula_charge"])
    if guest in unit:
        return None
    x = guest_content(row["formula_discharge"], guest, row["formula_charge"])
    if not x:
        return None
    of_host = by_id.loc[row["host"]]
    (host,) = read_crystals(of_host.to_frame().T)
    content = Fraction(x * len(host) / unit.num_atoms).limit_denominator(WHOLE_UP_TO)
    times = supercell_for(host, content, MAX_ATOMS_FILLED)
    if times is None:
        return None
    if times != (1, 1, 1):
        host = Crystal.from_pymatgen(host.to_pymatgen() * list(times))
    filled = Composition(row["formula_discharge"]).reduced_formula
    alike = crystals.iloc[by_formula.get(filled, [])]
    return Pair(
        name=row["battery_id"],
        host=host,
        guest=guest,
        count=round(float(content) * math.prod(times)),
        units=len(host) / unit.num_atoms,
        host_formula=unit.reduced_formula,
        filled_formula=filled,
        split=str(of_host.get("split", "")),
        voltage=float(row["average_voltage"]),
        volume_change=float(row.get("max_delta_volume", math.nan)),
        known=list(zip(alike["material_id"], read_crystals(alike), strict=True)),
    )


def measure(pair: Pair, filler: HostFiller, guest_energy: float, *, seed: int = 0) -> dict[str, Any]:
    """Compute a pair; what fails is said in ``problem``.

    Args:
        pair: host and ion.
        filler: computes.
        guest_energy: eV/atom of the guest's element.
        seed: of the placements.
    """
    record: dict[str, Any] = {
        "name": pair.name,
        "host": pair.host_formula,
        "filled": pair.filled_formula,
        "ion": pair.guest,
        "split": pair.split,
        "n_atoms": len(pair.host),
        "count": pair.count,
        "reference": pair.voltage,
        "reference_volume_change": pair.volume_change,
        "problem": "",
    }
    began = time.process_time()
    empty, kept, _ = filler.empty(pair.host)
    if not may_be_ranked(empty):
        return record | {"problem": f"the empty host: {empty.reason}", "seconds": time.process_time() - began}
    try:
        filled = filler.fill(empty.final if kept else pair.host, pair.guest, pair.count, seed=seed, like=pair.host)
    except ValueError as error:
        return record | {"problem": str(error), "seconds": time.process_time() - began}
    seconds = time.process_time() - began
    record |= {"empty_kept": kept, "seconds": seconds, "dropped": dict(filled.dropped)}
    if not filled.fillings:
        return record | {"problem": f"no arrangement survived: {', '.join(sorted(filled.dropped))}"}
    start = empty.energy_final * len(pair.host) / pair.units

    def voltage(energy: float) -> float:
        x = pair.count / pair.units
        return average_voltage(start, energy, x, guest_energy, ion_charge(pair.guest))

    best = filled.topotactic or filled.fillings[0]
    volume = best.crystal.volume / (empty.final if kept else pair.host).volume - 1
    record |= {
        "voltage": voltage(best.energy / pair.units),
        "voltage_lowest": voltage(filled.fillings[0].energy / pair.units),
        "host_kept": best.host_kept,
        "volume_change": volume,
    }
    return record | _against_known(pair, filler, best, filled.fillings, voltage)


def _against_known(
    pair: Pair, filler: HostFiller, best: Filling, fillings: Sequence[Filling], voltage: Callable[[float], float]
) -> dict[str, Any]:
    """What the known filled crystal says: its voltage, and whether ours is the same, lower or higher."""
    relaxed = []
    for name, crystal in pair.known:
        if _is_filled_host(pair, crystal):
            outcome = filler.relaxed(crystal)
            if may_be_ranked(outcome):
                relaxed.append((outcome.energy_final, name, outcome.final))
    if not relaxed:
        return {"known": None}
    energy, name, crystal = min(relaxed, key=lambda one: one[0])
    atoms = len(pair.host) + pair.count
    gap = min(one.energy for one in fillings) / atoms - energy
    matcher = StructureMatcher(attempt_supercell=True)
    matched = any(matcher.fit(one.crystal.to_pymatgen(), crystal.to_pymatgen()) for one in fillings[:3])
    sites = "lower" if gap < -SAME_ENERGY else "matched" if matched or gap <= SAME_ENERGY else "higher"
    return {
        "known": name,
        "voltage_known": voltage(energy * atoms / pair.units),
        "above_known": gap,
        "matched": matched,
        "sites": sites,
    }


def _is_filled_host(pair: Pair, crystal: Crystal) -> bool:
    """Whether a crystal is this host, filled: by its volume, where the table gives it, and by its framework."""
    rest = crystal.select(np.array(crystal.symbols) != pair.guest)
    change = (crystal.volume / len(rest)) / (pair.host.volume / len(pair.host)) - 1
    either = (abs(change), 1 - 1 / (1 + change))
    if math.isfinite(pair.volume_change) and min(abs(one - pair.volume_change) for one in either) > SAME_VOLUME:
        return False
    small, large = sorted((pair.host, rest), key=len)
    return same_framework(small, large)


def run_benchmark(
    table: Path,
    structures: Path,
    *,
    method: str = "all",
    ions: Sequence[str] = (),
    max_atoms: int = 40,
    limit: int | None = None,
    names: Sequence[str] | None = None,
    share: tuple[int, int] = (1, 1),
    weights: str | None = None,
    potential: str = DEFAULT,
    seed: int = 0,
    out: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compute all pairs, each stored in the ``.jsonl`` beside ``out`` as soon as it is done, and summarise them.

    Args:
        table, structures, ions, max_atoms, limit, names: see `load_pairs`.
        method: how guests are placed, see `METHODS`.
        share: (k, n), compute the k-th of n parts.
        weights: of the score model.
        potential: name in the catalogue; it needs a packaged reference.
        seed: of the placements.
        out: JSON file for the result.
        report: called with the number of pairs done and to do.

    Returns:
        the statistics of `search.electrodes.summary.summarise`, the settings, and one record per pair.

    Raises:
        ValueError: an unknown method, a bad file, or ``out`` holds a benchmark with other settings.
    """
    if method not in METHODS:
        raise ValueError(f"--method {method}: choose from {', '.join(METHODS)}")
    settings = FillSettings.model_validate(METHODS[method])
    phases = packaged_reference(potential).phases
    metals = phases[~phases["system"].str.contains("-")].groupby("system")["energy_per_atom"].min()
    pairs = load_pairs(table, structures, ions=ions, max_atoms=max_atoms, limit=limit, names=names)
    header = {
        "table": hashlib.sha256(table.read_bytes()).hexdigest()[:16],
        "method": method,
        "settings": settings.model_dump(),
        "potential": potential,
        "weights": weights or "small",
        "seed": seed,
    }
    done = _stored(out, header)
    part, parts = share
    todo = [pair for pair in pairs[part - 1 :: parts] if pair.name not in done]
    filler = HostFiller(potential, weights, settings) if todo else None
    for number, pair in enumerate(todo, start=1):
        assert filler is not None
        done[pair.name] = measure(pair, filler, float(metals[pair.guest]), seed=seed)
        if out is not None:
            with _records(out).open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[pair.name]) + "\n")
        report(number, len(todo))
    records = [done[pair.name] for pair in pairs if pair.name in done]
    result = {**summarise(records), **header, "asked": len(pairs), "pairs": records}
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _records(out: Path) -> Path:
    return out.with_suffix(".jsonl")


def _stored(out: Path | None, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pairs that are done, by name; an incomplete line of a killed process is dropped, and its pair repeated."""
    if out is None:
        return {}
    path = _records(out)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if not lines:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    if (other := json.loads(lines[0])) != header:
        changed = [key for key, value in header.items() if other.get(key) != value]
        raise ValueError(f"{path} holds a benchmark with another {', '.join(changed)}: choose another --json")
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    return {record["name"]: record for record in map(json.loads, whole[1:])}
