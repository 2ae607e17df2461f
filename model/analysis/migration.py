"""Migration of guests in a crystal: hops between sites, in how many dimensions they percolate, and their barriers."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers
from ase.mep import NEB
from ase.optimize import FIRE
from pymatgen.analysis.diffusion.neb.full_path_mapper import MigrationGraph

from model.crystals.crystal import Crystal
from model.crystals.periodic_images import cells_across, rounded_lengths, shortest_lengths
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.relax import RelaxSettings, relax
from model.settings import Settings
from model.symmetry.space_group import SYMPREC


@dataclass(frozen=True, eq=False, kw_only=True)
class Hop:
    """A jump between two sites; jumps that are equal by symmetry count as one.

    Attributes:
        start, end: (3,) fractional; the end may lie in another cell.
        length: Å.
        multiplicity: number of such hops in the cell.
        bottleneck_radius: Å, smallest distance from the straight line between start and end to an atom of the host.
    """

    start: np.ndarray
    end: np.ndarray
    length: float
    multiplicity: int
    bottleneck_radius: float


@dataclass(frozen=True, eq=False)
class MigrationNetwork:
    """The sites of a guest and the hops between them.

    Attributes:
        crystal: with all its guest sites filled.
        guest: element.
        hops: distinct hops, shortest first.
        edges: (site, site, cell of the second relative to the first, index of the hop) of every hop in the cell.
    """

    crystal: Crystal
    guest: str
    hops: list[Hop]
    edges: list[tuple[int, int, tuple[int, int, int], int]]

    def dimensions(self, hops: Collection[int] | None = None) -> int:
        """Number of dimensions, 0 to 3, in which these hops (indices; default: all) percolate.

        Every hop outside a spanning tree of the sites closes a loop. A loop that ends in another cell than it began in
        is a translation by which guests travel; the dimension is the rank of all such translations.
        """
        graph = nx.MultiGraph()
        for u, v, image, hop in self.edges:
            if hops is None or hop in hops:
                graph.add_edge(u, v, image=np.array(image) if u <= v else -np.array(image))
        ranks = [_rank(graph.subgraph(part)) for part in nx.connected_components(graph)]
        return max(ranks, default=0)

    def percolation_thresholds(self, costs: Sequence[float]) -> dict[int, float]:
        """Smallest maximum cost of hops that allows percolation in 1, 2 and 3 dimensions, if it is possible.

        Args:
            costs: of each hop, for example its length or its barrier.

        Returns:
            dimension -> cost.
        """
        found: dict[int, float] = {}
        for cost in sorted(set(costs)):
            reached = self.dimensions([i for i, own in enumerate(costs) if own <= cost])
            for dimension in range(1, reached + 1):
                found.setdefault(dimension, float(cost))
        return found


def migration_network(crystal: Crystal, guest: str, *, max_length: float = 4.5) -> MigrationNetwork:
    """The hops of a guest between the sites that it has in a crystal, grouped by symmetry.

    Args:
        crystal: with all guest sites filled.
        guest: element.
        max_length: maximum length of a hop, Å.

    Raises:
        ValueError: the crystal does not contain the guest, or contains nothing else.
    """
    z = atomic_numbers.get(guest)
    if z not in crystal.numbers:
        raise ValueError(f"{crystal.formula} contains no {guest}")
    sites = crystal.wrapped()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen on spglib
        graph = MigrationGraph.with_distance(sites.to_pymatgen(), guest, max_length, symprec=SYMPREC)
    found = sorted(graph.m_graph.graph.edges(data=True), key=lambda edge: (edge[2]["hop"].length, edge[2]["hop_label"]))
    labels = list(dict.fromkeys(data["hop_label"] for *_, data in found))
    edges = [(u, v, _image(data["to_jimage"]), labels.index(data["hop_label"])) for u, v, data in found]
    host = crystal.select(crystal.numbers != z)
    hops = []
    for label in labels:
        alike = [data for *_, data in found if data["hop_label"] == label]
        start, end = np.array(alike[0]["ipos"]), np.array(alike[0]["epos"])
        hops.append(
            Hop(
                start=start,
                end=end,
                length=float(alike[0]["hop"].length),
                multiplicity=len(alike),
                bottleneck_radius=_bottleneck_radius(host, start, end),
            )
        )
    return MigrationNetwork(crystal, guest, hops, edges)


def _image(image: Sequence[int]) -> tuple[int, int, int]:
    a, b, c = (int(n) for n in image)
    return a, b, c


def _rank(graph: nx.MultiGraph) -> int:
    """Rank of the translations of all loops in one connected component."""
    root = next(iter(graph))
    cell = {root: np.zeros(3, dtype=int)}
    queue = [root]
    while queue:
        u = queue.pop()
        for v, data in ((v, d) for v, many in graph[u].items() for d in many.values()):
            if v not in cell:
                cell[v] = cell[u] + (data["image"] if u <= v else -data["image"])
                queue.append(v)
    loops = [cell[min(u, v)] + d["image"] - cell[max(u, v)] for u, v, d in graph.edges(data=True)]
    return int(np.linalg.matrix_rank(np.array(loops)))


def _bottleneck_radius(host: Crystal, start: np.ndarray, end: np.ndarray) -> float:
    if not len(host):
        return np.inf
    line = start + np.linspace(0, 1, 21)[:, None] * (end - start)
    return float(shortest_lengths(line[:, None] - host.fractional, host.lattice, reach=2).min())


# --- barriers -----------------------------------------------------------------------------------------------------


class BarrierSettings(Settings):
    """How the barrier of a hop is computed."""

    min_length: float = 8.0  # Å, distance between opposite faces of the supercell
    images: int = 5  # between the ends
    fmax: float = 0.05  # eV/Å
    max_steps: int = 200
    vacancy: bool = True  # all other guest sites are filled; if False all are empty


@dataclass(frozen=True, eq=False, kw_only=True)
class Barrier:
    """The barrier of a hop.

    Attributes:
        forward, backward: eV, from the start and from the end to the highest point.
        energies: (images + 2,) eV along the path, 0 at the start.
        images: crystals along the path, the moving atom last.
        converged: whether the forces along the path fell below fmax, and the ends relaxed.
    """

    forward: float
    backward: float
    energies: np.ndarray
    images: list[Crystal]
    converged: bool


class PotentialCalculator(Calculator):
    """An ASE calculator that evaluates a `Potential`."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 (as ASE declares it)

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy, forces and stress of the atoms."""
        super().calculate(atoms, properties, system_changes)
        (found,) = self.potential.evaluate([Crystal.from_ase(self.atoms)])
        if found.problem:
            raise ValueError(f"the potential cannot evaluate this image: {found.problem}")
        stress = found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        self.results = {"energy": found.energy * len(self.atoms), "forces": found.forces, "stress": stress}


def hop_ends(network: MigrationNetwork, hop: int, settings: BarrierSettings) -> tuple[Crystal, Crystal]:
    """The crystal before and after a hop in a supercell; the moving atom is the last."""
    crystal, path = network.crystal.wrapped(), network.hops[hop]
    repeats = np.ceil(cells_across(crystal.lattice, settings.min_length)).astype(int)
    shifts = np.stack(np.meshgrid(*[range(n) for n in repeats], indexing="ij"), -1).reshape(-1, 1, 3)
    fractional = ((crystal.fractional + shifts) / repeats).reshape(-1, 3)
    big = Crystal(crystal.lattice * repeats[:, None], fractional, np.tile(crystal.numbers, len(shifts)))
    ends = np.array([path.start, path.end]) / repeats
    touched = (rounded_lengths(big.fractional[:, None] - ends, big.lattice) < 0.1).any(1)
    guests = big.numbers == atomic_numbers[network.guest]
    rest = big.select(~(guests & (touched | (not settings.vacancy))))
    moving = np.array([atomic_numbers[network.guest]])
    before, after = (rest.join(Crystal(big.lattice, end[None], moving)) for end in ends)
    return before, after


def barrier(
    network: MigrationNetwork, hop: int, potential: Potential, settings: BarrierSettings | None = None
) -> Barrier:
    """The barrier of a hop by a climbing-image nudged elastic band (Henkelman et al. 2000), at fixed cell.

    The ends are relaxed; the path between them starts from image-dependent pair potentials (IDPP). ASE runs the band.

    Args:
        network: from `migration_network`.
        hop: its index in ``network.hops``.
        potential: gives energies and forces.
        settings: see `BarrierSettings`.

    Raises:
        ValueError: an end cannot be relaxed, or the guest does not stay at its end.
    """
    settings = settings or BarrierSettings()
    relaxation = RelaxSettings(cell="fixed", optimizer="lbfgs", fmax=settings.fmax, max_steps=settings.max_steps)
    ends = relax(hop_ends(network, hop, settings), potential, relaxation)
    for end in ends:
        if end.reason not in (Reason.CONVERGED, Reason.STEP_LIMIT):
            raise ValueError(f"an end of hop {hop} cannot be relaxed: {end.reason}")
    _check_apart(ends[0].final, ends[1].final, hop)
    first, last = (end.final.to_ase() for end in ends)
    images = [first, *(first.copy() for _ in range(settings.images)), last]
    calculator = PotentialCalculator(potential)
    for image in images:
        image.calc = calculator
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate("idpp", mic=True)
    converged = FIRE(band, logfile=None).run(fmax=settings.fmax, steps=settings.max_steps)
    inner = [image.get_potential_energy() for image in images]
    energies = np.array(inner) - inner[0]
    return Barrier(
        forward=float(energies.max()),
        backward=float(energies.max() - energies[-1]),
        energies=energies,
        images=[Crystal.from_ase(image) for image in images],
        converged=bool(converged) and all(end.converged for end in ends),
    )


def _check_apart(before: Crystal, after: Crystal, hop: int) -> None:
    if rounded_lengths(before.fractional[-1] - after.fractional[-1], before.lattice) < 0.5:
        raise ValueError(f"both ends of hop {hop} relax to the same site: one of its sites is not a minimum")
