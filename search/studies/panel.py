"""A panel of judges: crystals relaxed with other potentials, each measured against the hull of that potential."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from model.crystals.crystal import Crystal
from model.potentials.catalog import PotentialChoice, find_entry, load_potential
from model.potentials.interface import Potential
from model.symmetry.space_group import space_group
from model.thermodynamics.judge import Judgement, judge, own_reference
from model.thermodynamics.own_hull import missing_phases
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Stability
from search.planning.prepare import describe_reference
from search.storage.crystal_files import NamedCrystal
from search.storage.judgements import JudgementRow
from search.storage.paths import RunPath
from search.storage.ranking import rank
from search.storage.results import load_results
from search.storage.rows import StoredCrystal, unpack_or_raise

Report = Callable[[str, int, int], None]  # what is done, number done, number of all


@dataclass(frozen=True, kw_only=True, eq=False)
class Defendant:
    """A crystal before its judges.

    Attributes:
        name: of the candidate, or from its file.
        crystal: as the search left it, or as in the file.
        space_group: its symbol; None if it has none.
        e_d: eV/atom, of the search; None for a file.
        potential: of the search; None for a file.
    """

    name: str
    crystal: Crystal
    space_group: str | None
    e_d: float | None = None
    potential: str | None = None


def of_run(run: RunPath, *, top: int) -> list[Defendant]:
    """The distinct candidates of lowest E_d of a run.

    Raises:
        ValueError: the run has no relaxed candidate.
    """
    best = rank(load_results(run, structures=False), top=top)
    if best.empty:
        raise ValueError(f"{run} has no relaxed candidate yet")
    return [
        Defendant(
            name=row["candidate"],
            crystal=unpack_or_raise(row["final"]),
            space_group=row["space_group"] if isinstance(row["space_group"], str) else None,
            e_d=float(row["e_d"]),
            potential=row["potential"],
        )
        for row in best.to_dict("records")
    ]


def of_files(crystals: Iterable[NamedCrystal]) -> list[Defendant]:
    """Crystals of files."""
    groups = [(one, space_group(one.crystal)) for one in crystals]
    return [
        Defendant(name=one.name, crystal=one.crystal, space_group=None if group is None else group.symbol)
        for one, group in groups
    ]


def check_judges(judges: Sequence[PotentialChoice], defendants: Sequence[Defendant]) -> None:
    """Check the choice of judges before any work.

    Raises:
        ValueError: one is given twice, or is the search's own potential.
    """
    names = [find_entry(one).name for one in judges]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"--with {name} is given twice; give each judge once")
        if any(one.potential == name for one in defendants):
            raise ValueError(f"--with {name}: it computed these crystals itself; choose another potential")


def take_panel(
    defendants: Sequence[Defendant],
    judges: Sequence[PotentialChoice],
    *,
    device: str = "cpu",
    report: Report = lambda what, done, total: None,
) -> list[JudgementRow]:
    """Let each judge relax each crystal; its hull is made on the spot where no relaxed table is packaged.

    Args:
        defendants: crystals of any systems.
        judges: the other potentials.
        device: "cpu" or "cuda".
        report: called as things are done.

    Returns:
        one row per crystal and judge, crystal by crystal.

    Raises:
        ValueError: see `check_judges`; or a judge cannot be made, or does not know an element.
    """
    check_judges(judges, defendants)
    said = [_judged(defendants, load_potential(choice, device=device), report) for choice in judges]
    return [row for of_crystal in zip(*said, strict=True) for row in of_crystal]


def _judged(defendants: Sequence[Defendant], potential: Potential, report: Report) -> list[JudgementRow]:
    """The rows of one judge, in the order of the crystals."""
    systems = _largest_systems(one.crystal.symbols for one in defendants)
    rows: dict[int, JudgementRow] = {}
    for system in systems:
        places = [
            i for i, one in enumerate(defendants) if i not in rows and system.issuperset(set(one.crystal.symbols))
        ]
        text = f"{potential.name}: phases of {'-'.join(sorted(system))}"
        reference = own_reference(system, potential, report=partial(report, text))
        hull, missing = Stability(reference, system), _missing(reference, system)
        crystals, done = [defendants[i].crystal for i in places], list[int]()

        def count(index: int, result: object, total: int = len(places), done: list[int] = done) -> None:
            done.append(index)
            report(f"{potential.name}: crystals", len(done), total)

        for i, found in zip(places, judge(crystals, potential, hull, report=count), strict=True):
            rows[i] = _row(defendants[i], found, potential, hull, missing)
    return [rows[i] for i in range(len(defendants))]


def _largest_systems(symbols: Iterable[Sequence[str]]) -> list[frozenset[str]]:
    """The chemical systems of crystals, without those that are part of another."""
    systems = {frozenset(some) for some in symbols}
    return sorted((one for one in systems if not any(one < other for other in systems)), key=sorted)


def _missing(reference: Reference, system: Collection[str]) -> list[str]:
    known = set(reference.of_system(system)["formula"])
    return [formula for formula in missing_phases(system) if formula not in known]


def _row(
    one: Defendant, found: Judgement, potential: Potential, hull: Stability, missing: Sequence[str]
) -> JudgementRow:
    relaxed = found.relaxation
    first = hull.decomposition(one.crystal.composition, relaxed.energy_initial)
    return JudgementRow(
        candidate=one.name,
        formula=one.crystal.formula,
        space_group=one.space_group,
        e_d=one.e_d,
        potential=one.potential,
        judge=potential.name,
        version=potential.version,
        e_d_first=first.e_d,
        e_d_judge=found.e_d,
        energy=found.energy,
        products=found.products,
        converged=relaxed.converged,
        reason=str(relaxed.reason),
        steps=relaxed.steps,
        seconds=relaxed.seconds,
        reference=describe_reference(hull.reference),
        missing=list(missing),
        final=StoredCrystal.of(found.crystal),
    )
