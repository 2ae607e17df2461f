"""Tables and pictures of `hostguide analyse`: environments, migration, voltages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from search.storage.crystal_files import read_host
from search.storage.rows import Status

FOUND, KNOWN = "#1f6f8b", "#d1495b"
NARROWEST = 1.5  # Å, radius of a void that takes a guest
ONE_SITE = 0.7  # Å, sites closer than this are one


def known_phases(paths: Sequence[Path], elements: Sequence[str]) -> list[Crystal]:
    """Phases to compare with: crystal files; of a Parquet file of structures, the system's own near the hull.

    Raises:
        ValueError: a file does not exist or cannot be read, or there is no such phase.
    """
    found: list[Crystal] = []
    for path in paths:
        if path.suffix != ".parquet":
            found.append(read_host(path))
        elif path.is_file():
            found += read_structures(path, "-".join(sorted(elements)), within=0.1)
        else:
            raise ValueError(f"{path} does not exist")
    if paths and not found:
        raise ValueError(f"no phase of {'-'.join(sorted(elements))} in {', '.join(map(str, paths))}")
    return found


def surrounding_elements(elements: Sequence[str], center: str) -> list[str]:
    """Whose atoms make up the coordination of an element: the most electronegative one's; around that, all others."""
    anion = max(elements, key=lambda symbol: Element(symbol).X)
    others = [symbol for symbol in elements if symbol != center]
    return [anion] if center != anion else others or [center]


def coordination_table(found: Sequence[Crystal], known: Sequence[Crystal], elements: Sequence[str]) -> pd.DataFrame:
    """Shares of coordination numbers: element, neighbours, coordination, found, known (NaN without known phases)."""
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
    """g(r) of every pair of elements, found against known."""
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
    """Bars of a `coordination_table`."""
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
    """A figure of so many panels, three in a row, and their axes."""
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture, and the folder that it goes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


@dataclass(frozen=True, eq=False, kw_only=True)
class Percolation:
    """How a guest migrates through a crystal.

    Attributes:
        network: sites and hops.
        lengths: dimension (1, 2, 3) -> Å, the longest hop that is needed to percolate in so many.
        barriers: index of a hop -> its barrier.
        highest: dimension -> eV, the highest barrier that must be overcome, where all hops that it takes were computed.
        problems: why barriers could not be computed.
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
        crystal: with its guests; without any, its voids are taken for their sites.
        guest: element.
        max_length: Å, of a hop.
        potential: computes the barriers of the hops that are needed to percolate in one dimension.
        settings: of the barriers.
        equal_sites: join the sites that the host's symmetry makes of the guests', see `with_equal_sites`.
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
    """Energies along hops, by the name of each, over the path length of the moving atom."""
    figure, (axis,) = new_figure(1)
    for name, one in found.items():
        axis.plot(path_length(one), one.energies, marker="o", markersize=3, label=name)
    axis.set(xlabel="path of the guest (Å)", ylabel="energy (eV)")
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def path_length(found: Barrier) -> np.ndarray:
    """(images + 2,) Å that the moving atom has moved up to each image of a hop."""
    steps = [
        shortest_steps(after.fractional[-1] - before.fractional[-1], before.lattice) @ before.lattice
        for before, after in pairwise(found.images)
    ]
    return np.cumsum([0.0, *(float(np.linalg.norm(step)) for step in steps)])


def with_equal_sites(crystal: Crystal, guest: str) -> Crystal:
    """The crystal with a guest on every site that the empty host's symmetry makes equal to one of its guests'.

    Sites closer than `ONE_SITE` are one, in their middle. The host is moved onto its space group (within 0.1 Å).

    Raises:
        ValueError: no guest in the crystal, nothing else in it, or no space group is found.
    """
    mask = np.array(crystal.symbols) == guest
    if mask.all() or not mask.any():
        raise ValueError(f"{crystal.formula} needs {guest} and a host for the host's symmetry to give sites")
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
    """The crystal itself, or, if it holds no guest, the crystal with a guest in each void.

    Raises:
        ValueError: no void is wide enough.
    """
    if guest in crystal.symbols:
        return crystal
    voids = void_sites(crystal, min_radius=NARROWEST, merge=1.0)
    if not voids:
        raise ValueError(f"{crystal.formula} has no void wider than {NARROWEST} Å for {guest}")
    sites = np.array([void.fractional for void in voids])
    return crystal.join(Crystal(crystal.lattice, sites, np.full(len(sites), Element(guest).Z)))


def run_voltages(
    frame: pd.DataFrame, guest: str, host: str, stability: Stability, *, known: bool = True
) -> list[VoltageStep]:
    """Voltage curve of a host from the relaxed candidates of a run.

    Args:
        frame: results of a run.
        guest: element.
        host: formula unit without the guest.
        stability: hull of the run.
        known: whether the phases of the run's reference take part.

    Returns:
        no steps where not two phases of the line are known.
    """
    relaxed = frame[frame["status"] == Status.RELAXED]
    phases = [*zip(relaxed["formula"], relaxed["energy"], strict=True)]
    if known:
        reference = stability.reference.of_system(stability.elements)
        phases += [*zip(reference["formula"], reference["energy_per_atom"], strict=True)]
    return voltage_curve(phases, guest, host, guest_energy=stability.hull_energy(guest))


def draw_voltages(steps: Sequence[VoltageStep], guest: str, host: str, path: Path) -> None:
    """The curve as a picture."""
    figure, (axis,) = new_figure(1)
    x = [value for step in steps for value in (step.start, step.end)]
    axis.plot(x, [step.voltage for step in steps for _ in range(2)], color=FOUND)
    axis.set(xlabel=f"x in {guest}$_x${host}", ylabel=f"V against {guest}")
    save_figure(figure, path)
