"""Computations, tables and figures of `hostguide analyse`: local environments, migration, voltages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pymatgen.core import Element

from model.analysis.environments import coordination_statistics, radial_distribution
from model.analysis.migration import Barrier, BarrierSettings, MigrationNetwork, barrier, migration_network
from model.analysis.voltage import VoltageStep, voltage_curve
from model.crystals.crystal import Crystal
from model.crystals.periodic_images import shortest_steps
from model.crystals.voids import void_sites
from model.potentials.interface import Potential
from model.symmetry.space_group import fractional_operations, refine
from model.thermodynamics.reference import read_structures
from model.thermodynamics.stability import Stability
from search.storage.crystal_files import NamedCrystal, read_crystal
from search.storage.rows import Status

FOUND, KNOWN = "#1f6f8b", "#d1495b"
NARROWEST = 1.5  # Å, smallest radius of a void that can hold a guest
ONE_SITE = 0.7  # Å, sites closer than this are merged


def known_phases(
    paths: Sequence[Path], elements: Sequence[str], say: Callable[[NamedCrystal], None] = lambda read: None
) -> list[Crystal]:
    """Known phases to compare with, from crystal files or from Parquet files of structures.

    From a Parquet file, the phases of the chemical system up to 0.1 eV/atom above the hull are taken.

    Args:
        paths: of the files.
        elements: of the chemical system.
        say: called with each crystal of a file, to tell the user its warnings.

    Raises:
        ValueError: a file does not exist or cannot be read, or there is no such phase.
    """
    found: list[Crystal] = []
    for path in paths:
        if path.suffix != ".parquet":
            read = read_crystal(path)
            say(read)
            found.append(read.crystal)
        elif path.is_file():
            found += read_structures(path, "-".join(sorted(elements)), within=0.1)
        else:
            raise ValueError(f"{path} does not exist")
    if paths and not found:
        raise ValueError(f"no phase of {'-'.join(sorted(elements))} in {', '.join(map(str, paths))}")
    return found


def surrounding_elements(elements: Sequence[str], center: str) -> list[str]:
    """Elements counted in the coordination of ``center``: the most electronegative one; for that one, all others."""
    anion = max(elements, key=lambda symbol: Element(symbol).X)
    others = [symbol for symbol in elements if symbol != center]
    return [anion] if center != anion else others or [center]


def coordination_table(found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str]) -> pd.DataFrame:
    """Shares of coordination numbers, with columns element, neighbours, coordination, found and known.

    ``known`` is NaN without known phases.
    """
    rows = []
    for center in elements:
        around = surrounding_elements(elements, center)
        columns = {}
        for name, crystals in (("found", found), ("known", known)):
            complete = [crystal for crystal in crystals if {center, *around} <= set(crystal.symbols)]
            columns[name] = coordination_statistics(complete, center, around) if complete else {}
        for number in sorted({*columns["found"], *columns["known"]}):
            shares = {name: share.get(number, 0.0) if share else np.nan for name, share in columns.items()}
            rows.append({"element": center, "neighbours": "+".join(around), "coordination": number, **shares})
    return pd.DataFrame(rows)


def draw_radial(found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str], path: Path) -> None:
    """Plot g(r) of every pair of elements, found and known."""
    pairs = list(combinations_with_replacement(sorted(elements), 2))
    figure, axes = new_figure(len(pairs))
    for axis, (one, other) in zip(axes, pairs, strict=False):
        for crystals, colour, label in ((found, FOUND, "found"), (known, KNOWN, "known")):
            if any({one, other} <= set(crystal.symbols) for crystal in crystals):
                radial = radial_distribution(crystals, one, other, width=0.1)
                axis.plot(radial.centers, radial.density, color=colour, label=label, linewidth=1.2)
        axis.set(xlabel="r (Å)", ylabel="g(r)", title=f"{one}–{other}", xlim=(1, 8))
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def draw_coordination(table: pd.DataFrame, path: Path) -> None:
    """Plot a `coordination_table` as bars."""
    groups = list(table.groupby("element", sort=False))
    figure, axes = new_figure(len(groups))
    for axis, (element, rows) in zip(axes, groups, strict=False):
        axis.bar(rows["coordination"] - 0.2, 100 * rows["found"], 0.4, color=FOUND, label="found")
        if rows["known"].notna().any():
            axis.bar(rows["coordination"] + 0.2, 100 * rows["known"], 0.4, color=KNOWN, label="known")
        axis.set(xlabel="coordination number", ylabel="%", title=f"{element} by {rows['neighbours'].iloc[0]}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def new_figure(panels: int) -> tuple[Figure, list]:
    """A figure with a number of panels, three per row, and their axes."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


@dataclass(frozen=True, eq=False, kw_only=True)
class Percolation:
    """Migration paths of a guest through a crystal.

    Attributes:
        network: sites and hops.
        lengths: dimension (1, 2, 3) -> Å, longest hop needed to percolate in that many dimensions.
        barriers: index of a hop -> its barrier.
        highest: dimension -> eV, highest barrier on the way; only where all hops needed were computed.
        problems: reasons why barriers could not be computed.
    """

    network: MigrationNetwork
    lengths: dict[int, float]
    barriers: dict[int, Barrier]
    highest: dict[int, float]
    problems: list[str]


def percolation(
    crystal: Crystal,
    guest: str,
    *,
    max_length: float = 4.5,
    potential: Potential | None = None,
    settings: BarrierSettings | None = None,
    equal_sites: bool = False,
) -> Percolation:
    """Hops of a guest, the dimensions in which they percolate and, with a potential, their barriers.

    Args:
        crystal: with its guests; without any, guest sites are placed in its voids.
        guest: element.
        max_length: maximum length of a hop, Å.
        potential: computes the barriers of the hops needed to percolate in one dimension.
        settings: of the barriers.
        equal_sites: include all sites equivalent under the host's symmetry, see `with_equal_sites`.
    """
    filled = with_equal_sites(crystal, guest) if equal_sites else with_sites(crystal, guest)
    network = migration_network(filled, guest, max_length=max_length)
    lengths = network.percolation_thresholds([hop.length for hop in network.hops])
    barriers: dict[int, Barrier] = {}
    problems = []
    if potential is not None:
        for index, hop in enumerate(network.hops):
            if hop.length > lengths.get(1, 0.0):
                continue
            try:
                barriers[index] = barrier(network, index, potential, settings)
            except ValueError as error:
                problems.append(str(error))
    costs = [
        max(barriers[i].forward, barriers[i].backward) if i in barriers else np.inf for i in range(len(network.hops))
    ]
    highest = {d: cost for d, cost in network.percolation_thresholds(costs).items() if np.isfinite(cost)}
    return Percolation(network=network, lengths=lengths, barriers=barriers, highest=highest, problems=problems)


def draw_barriers(found: Mapping[str, Barrier], path: Path) -> None:
    """Plot energies along hops, by name, against the path length of the moving atom."""
    figure, (axis,) = new_figure(1)
    for name, one in found.items():
        axis.plot(path_length(one), one.energies, marker="o", markersize=3, label=name)
    axis.set(xlabel="path length (Å)", ylabel="energy (eV)")
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def path_length(found: Barrier) -> np.ndarray:
    """Path length (images + 2,) in Å of the moving atom up to each image of a hop."""
    steps = [
        shortest_steps(after.fractional[-1] - before.fractional[-1], before.lattice) @ before.lattice
        for before, after in pairwise(found.images)
    ]
    return np.cumsum([0.0, *(float(np.linalg.norm(step)) for step in steps)])


def with_equal_sites(crystal: Crystal, guest: str) -> Crystal:
    """The crystal with a guest on every site that is equivalent to a guest site under the empty host's symmetry.

    Sites closer than `ONE_SITE` are merged at their mean position. The host is symmetrised (within 0.1 Å).

    Raises:
        ValueError: the crystal contains no guest or nothing else, or no space group is found.
    """
    mask = np.array(crystal.symbols) == guest
    if mask.all() or not mask.any():
        raise ValueError(f"{crystal.formula} must contain {guest} and a host, whose symmetry gives equivalent sites")
    refined = refine(crystal.select(~mask))
    if refined is None:
        raise ValueError(f"spglib finds no space group of {crystal.select(~mask).formula}")
    host = refined.parent
    sites: list[list[np.ndarray]] = []
    for rotation, translation in zip(*fractional_operations(host), strict=True):
        for image in crystal.fractional[mask] @ rotation.T + translation:
            for group in sites:
                step = shortest_steps(image - group[0], host.lattice)
                if np.linalg.norm(step @ host.lattice) < ONE_SITE:
                    group.append(group[0] + step)
                    break
            else:
                sites.append([image])
    places = np.array([np.mean(group, axis=0) for group in sites]) % 1.0
    return host.join(Crystal(host.lattice, places, np.full(len(places), Element(guest).Z)))


def with_sites(crystal: Crystal, guest: str) -> Crystal:
    """The crystal itself, or, if it contains no guest, the crystal with a guest in each void.

    Raises:
        ValueError: no void is wide enough.
    """
    if guest in crystal.symbols:
        return crystal
    voids = void_sites(crystal, min_radius=NARROWEST, merge=1.0)
    if not voids:
        raise ValueError(f"{crystal.formula} has no void with a radius above {NARROWEST} Å for {guest}")
    sites = np.array([void.fractional for void in voids])
    return crystal.join(Crystal(crystal.lattice, sites, np.full(len(sites), Element(guest).Z)))


def run_voltages(
    frame: pd.DataFrame,
    guest: str,
    host: str,
    stability: Stability,
    *,
    known: bool = True,
    charge: int | None = None,
) -> list[VoltageStep]:
    """Voltage curve of a host from the relaxed candidates of a run.

    Args:
        frame: results of a run.
        guest: element.
        host: formula unit without the guest.
        stability: hull of the run.
        known: whether to include the phases of the run's reference.
        charge: of the guest's ion, see `voltage_curve`.

    Returns:
        steps of the curve; empty if fewer than two stable phases are known on the line from host to guest.
    """
    relaxed = frame[frame["status"] == Status.RELAXED]
    phases = [*zip(relaxed["formula"], relaxed["energy"], strict=True)]
    if known:
        reference = stability.reference.of_system(stability.elements)
        phases += [*zip(reference["formula"], reference["energy_per_atom"], strict=True)]
    return voltage_curve(phases, guest, host, guest_energy=stability.hull_energy(guest), charge=charge)


def draw_voltages(steps: Sequence[VoltageStep], guest: str, host: str, path: Path, *, ion: str) -> None:
    """Plot a voltage curve; ``ion`` names the guest's ion, whose charge it is for."""
    figure, (axis,) = new_figure(1)
    x = [value for step in steps for value in (step.start, step.end)]
    axis.plot(x, [step.voltage for step in steps for _ in range(2)], color=FOUND)
    axis.set(xlabel=f"x in {guest}$_x${host}", ylabel=f"V vs {guest}/{ion}")
    save_figure(figure, path)
