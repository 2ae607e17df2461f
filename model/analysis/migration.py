"""Migration of guests in a crystal: hops between sites, in how many dimensions they percolate, and their barriers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_numbers, covalent_radii
from ase.mep import NEB
from ase.optimize import FIRE
from pymatgen.analysis.diffusion.neb.pathfinder import IDPPSolver

from model.crystals.crystal import Crystal
from model.crystals.neighbors import pair_vectors
from model.crystals.periodic_images import cells_across, rounded_lengths, shortest_lengths
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.relax import RelaxSettings, relax
from model.settings import Settings
from model.symmetry.space_group import SYMPREC, symmetry_dataset

_Pair = tuple[int, int, tuple[int, int, int]]  # two sites, and the cell of the second relative to the first
_Move = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Hop:
    """A jump between two sites; jumps that are equal by symmetry count as one.

    Attributes:
        start, end: (3,) fractional; the end may lie in another cell.
        length: Å.
        multiplicity: number of such hops in the cell.
        bottleneck_radius: Å, smallest distance from the straight line between start and end to an atom of the host.
        blocked: whether the line goes through an atom: nearer than half the sum of the two covalent radii.
    """

    start: np.ndarray
    end: np.ndarray
    length: float
    multiplicity: int
    bottleneck_radius: float
    blocked: bool = False


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
        return max((_rank(part) for part in self._translations(hops)), default=0)

    def direction(self, hops: Collection[int] | None = None) -> str:
        """Where these hops lead: ``along [001]`` or ``in (001)``; empty in 0 or 3 dimensions, or if it varies."""
        rank = self.dimensions(hops)
        parts = [part for part in self._translations(hops) if _rank(part) == rank]
        found = {_direction(part) for part in parts} if rank in (1, 2) else {""}
        return found.pop() if len(found) == 1 else ""

    def _translations(self, hops: Collection[int] | None) -> list[np.ndarray]:
        """(m, 3) cells between the ends of all loops, of each connected part of the network."""
        graph = nx.MultiGraph()
        for u, v, image, hop in self.edges:
            if hops is None or hop in hops:
                graph.add_edge(u, v, image=np.array(image) if u <= v else -np.array(image))
        return [_loops(graph.subgraph(part)) for part in nx.connected_components(graph)]

    def percolation_thresholds(self, costs: Sequence[float]) -> dict[int, float]:
        """Smallest maximum cost of hops that allows percolation in 1, 2 and 3 dimensions, if it is possible.

        Args:
            costs: of each hop, for example its length or its barrier.

        Returns:
            dimension -> cost. Hops of infinite cost do not count.
        """
        found: dict[int, float] = {}
        for cost in sorted({cost for cost in costs if np.isfinite(cost)}):
            reached = self.dimensions([i for i, own in enumerate(costs) if own <= cost])
            for dimension in range(1, reached + 1):
                found.setdefault(dimension, float(cost))
        return found


def migration_network(crystal: Crystal, guest: str, *, max_length: float = 4.5) -> MigrationNetwork:
    """The hops of a guest between the sites that it has in a crystal, grouped by symmetry.

    Own code: the MigrationGraph of pymatgen-analysis-diffusion gives the same hops (a test compares them) but compares
    each with all others, which takes minutes for some tens of sites.

    Args:
        crystal: with all guest sites filled.
        guest: element.
        max_length: maximum length of a hop, Å.

    Raises:
        ValueError: the crystal does not contain the guest.
    """
    z = atomic_numbers.get(guest, 0)
    if z not in crystal.numbers:
        raise ValueError(f"{crystal.formula} contains no {guest}")
    filled = crystal.wrapped()
    sites, host = filled.select(filled.numbers == z), filled.select(filled.numbers != z)
    lengths = _pairs(sites, max_length)
    moves = [_move(sites, *operation) for operation in _operations(filled)]
    edges: list[tuple[int, int, tuple[int, int, int], int]] = []
    hops: list[Hop] = []
    for group in _orbits(sorted(lengths, key=lambda pair: (round(lengths[pair], 6), pair)), moves):
        edges += [(*pair, len(hops)) for pair in group]
        one, other, cell = group[0]
        start, end = sites.fractional[one], sites.fractional[other] + cell
        radius, blocked = _way(host, z, start, end)
        hops.append(
            Hop(
                start=start,
                end=end,
                length=lengths[group[0]],
                multiplicity=len(group),
                bottleneck_radius=radius,
                blocked=blocked,
            )
        )
    return MigrationNetwork(crystal, guest, hops, edges)


def _pairs(sites: Crystal, max_length: float) -> dict[_Pair, float]:
    """Every pair of sites up to ``max_length`` Å apart once, with its length."""
    first, second, vectors = pair_vectors(sites, cutoff=max_length + 1e-6)
    steps = sites.fractional[second] - sites.fractional[first]
    cells = np.rint(vectors @ np.linalg.inv(sites.lattice) - steps).astype(int)
    ends = zip(first.tolist(), second.tolist(), cells.tolist(), np.linalg.norm(vectors, axis=1).tolist(), strict=True)
    return {_undirected(one, other, cell): length for one, other, cell, length in ends}


def _undirected(one: int, other: int, cell: Sequence[int]) -> _Pair:
    """The same pair in whichever direction it is given."""
    a, b, c = cell
    return min((one, other, (a, b, c)), (other, one, (-a, -b, -c)))


def _operations(crystal: Crystal) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rotations and translations of a crystal, x → R x + t; the identity alone where spglib finds no group."""
    dataset = symmetry_dataset(crystal, SYMPREC)
    if dataset is None:
        return iter([(np.eye(3, dtype=int), np.zeros(3))])
    return zip(dataset.rotations, dataset.translations, strict=True)


def _move(sites: Crystal, rotation: np.ndarray, translation: np.ndarray) -> _Move:
    """What x → R x + t does to the sites: their new numbers, the cells that they come to lie in, and R."""
    images = sites.fractional @ rotation.T + translation
    steps = images[:, None] - sites.fractional
    target = rounded_lengths(steps, sites.lattice).argmin(1)
    return target, np.rint(images - sites.fractional[target]).astype(int), rotation


def _orbits(pairs: Sequence[_Pair], moves: Sequence[_Move]) -> list[list[_Pair]]:
    """Pairs that symmetry maps onto each other, in the order of their first ones."""
    left = dict.fromkeys(pairs)
    groups = []
    while left:
        one, other, cell = next(iter(left))
        images = {
            _undirected(target[one], target[other], cells[other] + rotation @ cell - cells[one])
            for target, cells, rotation in moves
        }
        groups.append([pair for pair in [(one, other, cell), *sorted(images - {(one, other, cell)})] if pair in left])
        for pair in groups[-1]:
            del left[pair]
    return groups


def _loops(graph: nx.MultiGraph) -> np.ndarray:
    """(m, 3) the translations of all loops in one connected part."""
    root = next(iter(graph))
    cell = {root: np.zeros(3, dtype=int)}
    queue = [root]
    while queue:
        u = queue.pop()
        for v, data in ((v, d) for v, many in graph[u].items() for d in many.values()):
            if v not in cell:
                cell[v] = cell[u] + (data["image"] if u <= v else -data["image"])
                queue.append(v)
    return np.array([cell[min(u, v)] + d["image"] - cell[max(u, v)] for u, v, d in graph.edges(data=True)])


def _rank(translations: np.ndarray) -> int:
    return int(np.linalg.matrix_rank(translations))


def _direction(translations: np.ndarray) -> str:
    """The line or, by its Miller indices, the plane that translations (m, 3) of rank 1 or 2 lie in."""
    first = translations[np.flatnonzero(translations.any(1))[0]]
    normals = np.cross(first, translations)
    plane = normals[normals.any(1)]
    indices = plane[0] if len(plane) else first
    indices = indices // np.gcd.reduce(indices) * np.sign(indices[np.flatnonzero(indices)[0]])
    text = "".join(str(index) for index in indices)
    return f"in ({text})" if len(plane) else f"along [{text}]"


def _way(host: Crystal, guest: int, start: np.ndarray, end: np.ndarray) -> tuple[float, bool]:
    """Smallest distance in Å from the straight line to an atom of the host, and whether the line goes through one."""
    if not len(host):
        return np.inf, False
    line = start + np.linspace(0, 1, 21)[:, None] * (end - start)
    distance = shortest_lengths(line[:, None] - host.fractional, host.lattice).min(0)
    return float(distance.min()), bool((2 * distance < covalent_radii[guest] + covalent_radii[host.numbers]).any())


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

    The ends are relaxed; the path between them starts from image-dependent pair potentials (IDPP, of
    pymatgen-analysis-diffusion). ASE runs the band.

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
    images = _first_path(ends[0].final, ends[1].final, settings.images)
    calculator = PotentialCalculator(potential)
    for image in images:
        image.calc = calculator
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
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


def _first_path(before: Crystal, after: Crystal, images: int) -> list[Atoms]:
    """The ends and as many ``images`` between them, from image-dependent pair potentials (Smidstrup et al. 2014)."""
    solver = IDPPSolver.from_endpoints([before.to_pymatgen(), after.to_pymatgen()], nimages=images, sort_tol=0)
    inner = [Crystal.from_pymatgen(one) for one in solver.run(maxiter=1000, tol=1e-5, gtol=1e-3)[1:-1]]
    return [one.to_ase() for one in (before, *inner, after)]


def _check_apart(before: Crystal, after: Crystal, hop: int) -> None:
    if rounded_lengths(before.fractional[-1] - after.fractional[-1], before.lattice) < 0.5:
        raise ValueError(f"both ends of hop {hop} relax to the same site: one of its sites is not a minimum")
