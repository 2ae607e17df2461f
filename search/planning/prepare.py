"""Preparing a search: its reference phases, volume estimates and run metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
from pymatgen.core import Composition

from model.crystals.composition import CellFormula, parse_system
from model.potentials.ase import require_complete
from model.potentials.calculators import CalculatorSettings, installed_version
from model.potentials.catalog import find_entry, load_potential
from model.thermodynamics.entries import load_entries, load_materials_project
from model.thermodynamics.judge import own_reference
from model.thermodynamics.own_hull import judge_hull
from model.thermodynamics.reference import (
    Reference,
    load_reference_table,
    packaged_reference,
    reference_bytes,
    require_comparable,
    volume_per_atom,
)
from model.thermodynamics.stability import Stability
from search.config import LibrarySettings, SearchConfig
from search.config_file import load_config
from search.storage.paths import RunPath, write_whole
from search.storage.results import write_json

COMPATIBILITY_KEYS = ("reference", "judge_reference", "potential", "score_model", "hosts")
REFERENCE = "reference.parquet"  # of a run: the phases that its potential relaxed
JUDGE_REFERENCE = "judge-reference.parquet"  # the same of its judge
PACKAGES = ("hostguide", "torch", "e3nn", "pymatgen", "spglib", "ray", "numpy")


def load_reference(
    config: SearchConfig,
    run: RunPath | None = None,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Reference:
    """The phases of the configuration's elements; those that the potential must relax first are relaxed here.

    Args:
        config: of the search.
        run: where such phases are kept, once the search has started.
        report: called with the number of phases that are done and of all.

    Raises:
        ValueError: an element has no phase, or the reference's energies cannot be compared with the potential's.
    """
    settings, elements = config.reference, config.compositions.elements
    kind = reference_kind(config)
    if kind == "packaged":
        reference = packaged_reference(config.models.potential)
    elif kind == "library":
        reference = _kept(run, REFERENCE) or judge_hull(
            elements, load_potential(config.models.potential), report=report
        )
    elif kind == "table":
        reference = load_reference_table(str(settings.path))
    elif kind == "mp":
        reference = load_materials_project(elements, potential=config.models.potential_entry.level)
    else:
        assert settings.path is not None and settings.potential is not None
        reference = load_entries(settings.path, potential=settings.potential, allow_pickle=settings.allow_pickle)
    require_comparable(reference, config.models.potential)
    reference.require(elements)
    phases = reference.of_system(elements)
    return replace(reference, phases=phases[~_hidden(phases, config.library)])


def _hidden(phases: pd.DataFrame, library: LibrarySettings) -> pd.Series:
    """Which phases a blind search must not know; elements always serve."""
    systems = ["-".join(sorted(parse_system(one))) for one in library.without_systems]
    formulas = [Composition(one).reduced_formula for one in library.without_formulas]
    known = phases["system"].isin(systems) | phases["formula"].isin(formulas)
    return known & phases["system"].str.contains("-")


def load_judge_reference(
    config: SearchConfig,
    run: RunPath | None = None,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Reference | None:
    """The same phases with the energies of the search's judge; None if it has none."""
    if config.judge is None:
        return None
    elements = config.compositions.elements
    reference = _kept(run, JUDGE_REFERENCE) or own_reference(
        elements, load_potential(config.judge.potential), report=report
    )
    return replace(reference, phases=reference.of_system(elements))


def _kept(run: RunPath | None, name: str) -> Reference | None:
    """A reference that a run keeps."""
    file = None if run is None else run / name
    return load_reference_table(file.read_bytes(), name=str(file)) if file is not None and file.is_file() else None


def check_potential(config: SearchConfig) -> None:
    """Check that the configuration's calculators can be made and give all that relaxations need.

    Raises:
        ValueError: it cannot, or does not know an element of the search.
    """
    for potential in (config.models.potential, None if config.judge is None else config.judge.potential):
        if isinstance(potential, CalculatorSettings):
            require_complete(load_potential(potential), config.compositions.elements)


def reference_kind(config: SearchConfig) -> str:
    """The kind of the reference; ``auto`` is the packaged table of the potential, or else the library."""
    if config.reference.kind != "auto":
        return config.reference.kind
    return "library" if config.models.potential_entry.reference is None else "packaged"


def describe_reference(reference: Reference) -> str:
    """One line that names reference, potential and version, as stored with every result."""
    return f"{reference.name} ({reference.potential}, {reference.version})"


def volume_estimate(config: SearchConfig, reference: Reference, cell: CellFormula) -> float:
    """V0 (Å³/atom) of a composition without results: from the configuration if set, else from the reference phases."""
    return config.lattices.volume_per_atom or volume_per_atom(reference, cell.pymatgen)


def hull_energies(config: SearchConfig, reference: Reference) -> dict[str, float]:
    """Energy (eV/atom) of the reference hull at each reduced formula of the search."""
    stability = Stability(reference, config.compositions.elements)
    return {cell.reduced: stability.hull_energy(cell.reduced) for cell in config.compositions.expand()}


def run_stability(run: RunPath) -> Stability:
    """The hull against which the candidates of a stored search were measured.

    Raises:
        ValueError: the reference has changed since then.
    """
    config = load_config(run / "config.yaml")
    reference = load_reference(config, run)
    was = json.loads((run / "run.json").read_text())["reference"]
    if was != describe_reference(reference):
        raise ValueError(f"{run} was measured against {was}, and the reference is now {describe_reference(reference)}")
    return Stability(reference, config.compositions.elements)


@dataclass(frozen=True, kw_only=True)
class RunMetadata:
    """What determines the results of a run, as in ``run.json``.

    Attributes:
        search: its name.
        digest: hash of the configuration and the hosts.
        hosts: names of the hosts from files; a name contains a hash of the crystal.
        reference: name, potential and version.
        judge_reference: the same of the judge; empty without one.
        potential: name.
        score_model: name and content hash of its weights.
        packages: versions.
    """

    search: str
    digest: str
    hosts: list[str]
    reference: str
    judge_reference: str
    potential: str
    score_model: str
    packages: dict[str, str]

    @classmethod
    def of(cls, config: SearchConfig, reference: Reference, judge_reference: Reference | None = None) -> RunMetadata:
        """Metadata of a search with the installed packages."""
        from model.diffusion.checkpoint import weights_file, weights_version  # these are slow, and reports need none
        from search.planning.campaign import digest, hosts

        judges = [] if config.judge is None else [find_entry(config.judge.potential).package]
        packages = (*PACKAGES, config.models.potential_entry.package, *judges)
        return cls(
            search=config.name,
            digest=digest(config),
            hosts=hosts(config),
            reference=describe_reference(reference),
            judge_reference="" if judge_reference is None else describe_reference(judge_reference),
            potential=config.models.potential_entry.name,
            score_model=weights_version(weights_file(config.models.weights)),
            packages={name: installed_version(name) for name in packages},
        )


def write_run_metadata(
    run: RunPath, config: SearchConfig, reference: Reference, judge_reference: Reference | None = None
) -> None:
    """Write the configuration and metadata of a search to its run, and the phases if they were relaxed for it."""
    from model.diffusion.checkpoint import yaml_text

    if reference_kind(config) == "library":
        write_whole(run / REFERENCE, reference_bytes(reference))
    if judge_reference is not None:
        write_whole(run / JUDGE_REFERENCE, reference_bytes(judge_reference))
    write_whole(run / "config.yaml", yaml_text(config.model_dump(mode="json")).encode())
    write_json(run / "run.json", asdict(RunMetadata.of(config, reference, judge_reference)))


def same_search(
    run: RunPath, config: SearchConfig, reference: Reference, judge_reference: Reference | None = None
) -> None:
    """Refuse to continue a run that was started with a different configuration, reference or model.

    Raises:
        ValueError: naming the fields that differ.
    """
    stored = run / "config.yaml"
    if not stored.exists():
        return
    before, after = (json.loads(one.result_defining()) for one in (load_config(stored), config))
    changed = _differences(before, after)
    if (run / "run.json").exists():
        old = json.loads((run / "run.json").read_text())
        new = asdict(RunMetadata.of(config, reference, judge_reference))
        changed += _differences(
            {key: old.get(key) for key in COMPATIBILITY_KEYS}, {key: new[key] for key in COMPATIBILITY_KEYS}
        )
    if changed:
        raise ValueError(
            f"{run} contains a search with a different configuration ({'; '.join(changed[:5])}). "
            "Choose another folder with --run, or restore the configuration. "
            "Only resources, policy.rounds and policy.stop may change."
        )


def _differences(before: Any, after: Any, where: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [
            line for key in keys for line in _differences(before.get(key), after.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if before == after else [f"{where}: was {before!r}, is {after!r}"]
