"""Energies of known phases from pymatgen entries: a file of the user, or the Materials Project.

Nothing is corrected here: what is added to an energy, its source has added. Entries that say how they were computed are
held to it.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition

from model.potentials.corrections import usual_correction
from model.potentials.energies import MP2020_PBE, R2SCAN, RAW
from model.thermodynamics.reference import COLUMNS, Reference, add_chemsys_column

MP_THERMO = {MP2020_PBE: "GGA_GGA+U", R2SCAN: "R2SCAN"}  # as the Materials Project names them


def load_entries(path: str | Path, *, potential: str, allow_pickle: bool = False) -> Reference:
    """Read pymatgen entries: a JSON list of entries or a JSON PatchedPhaseDiagram, plain or gzipped.

    Args:
        path: the file. The energy of an entry is its energy with its own stored corrections.
        potential: method of the energies, a name of the catalogue or a level of theory, see `Reference`.
        allow_pickle: whether to load pickles, which can run any code of their author.

    Raises:
        ValueError: the file is a pickle and pickles are not allowed, it contains no entries, or its entries say that
            their energies are of several kinds or of another than given.
    """
    data = _read(Path(path), allow_pickle=allow_pickle)
    entries = _entries_of(data, path)
    require_one_scale(entries, potential, str(path))
    return Reference(Path(path).name, potential, _version_of(data), frame_of_entries(entries))


def load_materials_project(
    elements: Collection[str], *, potential: str = MP2020_PBE, api_key: str | None = None
) -> Reference:
    """Fetch the entries of one chemical system from the Materials Project.

    Args:
        elements: of the system.
        potential: ``MP2020-corrected PBE`` (GGA/GGA+U with MP2020 corrections) or ``r2SCAN``.
        api_key: default: environment variable MP_API_KEY.

    Raises:
        ImportError: the extra is not installed.
        ValueError: there is no API key, or the Materials Project has no such energies.
    """
    if potential not in MP_THERMO:
        raise ValueError(f"the Materials Project has {' and '.join(MP_THERMO)} energies, not {potential}")
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise ImportError("the Materials Project needs the package mp-api: pip install mp-api") from error
    key = api_key or os.environ.get("MP_API_KEY")
    if not key:
        raise ValueError("no Materials Project key: set MP_API_KEY (https://next-gen.materialsproject.org/api)")
    with MPRester(key) as client:
        criteria = {"thermo_types": [MP_THERMO[potential]]}
        entries = client.get_entries_in_chemsys(sorted(elements), additional_criteria=criteria)
        version = client.get_database_version()
    frame = frame_of_entries(entry.as_dict() for entry in entries)
    return Reference("Materials Project", potential, version, frame)


def require_one_scale(entries: Iterable[Mapping[str, Any]], potential: str, where: str) -> None:
    """Check that entries of DFT, as far as they say how they were computed, are on the scale that they are said to be.

    Args:
        entries: dictionaries of pymatgen entries.
        potential: method of the energies, see `Reference`.
        where: they come from, for the message.

    Raises:
        ValueError: they mix functionals, are of another one, or lack the corrections of MP2020.
    """
    kinds: dict[str, str] = {}  # level of theory -> an example
    for entry in entries:
        run_type = str((entry.get("parameters") or {}).get("run_type") or "").upper()
        if not run_type:
            continue
        formula = Composition(entry["composition"]).reduced_formula
        raw = run_type in RAW and not entry.get("correction") and not entry.get("energy_adjustments")
        kinds.setdefault(MP2020_PBE if run_type in RAW else R2SCAN if run_type == "R2SCAN" else run_type, formula)
        if raw and potential == MP2020_PBE and usual_correction(formula):
            raise ValueError(
                f"{where}: {formula} has a raw {run_type} energy without the corrections of MP2020; apply pymatgen's "
                "MaterialsProject2020Compatibility().process_entries and save the entries again"
            )
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({formula})" for kind, formula in kinds.items())
        raise ValueError(f"{where} mixes energies of {found}, which cannot be compared: keep the entries of one kind")
    if kinds and potential in MP_THERMO and potential not in kinds:
        raise ValueError(f"{where} holds energies of {next(iter(kinds))}, not of {potential}: name what computed them")


def frame_of_entries(entries: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Phases from dictionaries of PDEntry, ComputedEntry or ComputedStructureEntry, corrections as stored."""
    rows = [_row_of_entry(entry) for entry in entries]
    if not rows:
        raise ValueError("there are no entries: give at least the elements' phases")
    return add_chemsys_column(pd.DataFrame(rows, columns=list(COLUMNS)))


def _row_of_entry(entry: Mapping[str, Any]) -> tuple[str, str, float, float, bool]:
    composition = Composition(entry["composition"])
    volume = np.nan
    if "structure" in entry:
        volume = abs(np.linalg.det(entry["structure"]["lattice"]["matrix"])) / len(entry["structure"]["sites"])
    energy = (entry["energy"] + (entry.get("correction") or 0.0)) / composition.num_atoms
    label = entry.get("entry_id") or entry.get("name") or composition.reduced_formula
    return str(label), composition.reduced_formula, float(energy), float(volume), True


def _read(path: Path, *, allow_pickle: bool) -> Any:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    if raw.lstrip()[:1] in (b"[", b"{"):
        return json.loads(raw)
    if not allow_pickle:
        raise ValueError(
            f"{path} is not JSON. If it is a pickle, loading it runs whatever code its author put into it: "
            "pass allow_pickle=True only for a file you trust, or save it as JSON first"
        )
    return pickle.loads(raw)


def _entries_of(data: Any, path: str | Path) -> list[Mapping[str, Any]]:
    """The entries' dictionaries in a list, in a phase diagram of either layout, or in unpickled objects."""
    if not isinstance(data, (list, tuple, Mapping)):
        data = data.all_entries
    if isinstance(data, Mapping):
        data = data.get("all_entries") or data.get("computed_data", {}).get("all_entries") or data.get("entries")
    if not data:
        raise ValueError(f"{path} contains no entries: expected a list of entries or a phase diagram with all_entries")
    return [entry if isinstance(entry, Mapping) else entry.as_dict() for entry in data]


def _version_of(data: Any) -> str:
    return str(data.get("@version") or "unknown") if isinstance(data, Mapping) else "unknown"
