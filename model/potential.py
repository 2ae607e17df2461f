"""Energies, forces and stresses: the interface of every potential, CHGNet (fast, batched) and any ASE calculator.

Units: eV/atom, eV/Å, eV/Å³ (ASE's sign: positive is tensile, the crystal wants to shrink), μB.
CHGNet's energies already hold the corrections of MP2020; nothing is added here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from model.action import Action
from model.batch import Batch
from model.chgnet_network import Bonds, CHGNetNetwork, Graph, angle_counts, build_graph, undirected_bonds
from model.crystal import Crystal
from model.neighbors import heights
from model.projection import Projector
from model.quotient import quotient

MAX_IMAGES = 100_000  # periodic images of one cell within the cutoff
MAX_BONDS = 3_000_000  # of one crystal, as expected from its density
# Peak memory in float32 per directed bond or ordered angle, measured by benchmarks/evaluate.py.
BYTES, LEAN_BYTES = 14_000, 3_000
LISTED = 100  # bytes for an angle and an operation while orbits are sought
LARGEST = 5  # times the budget, for one crystal alone
SECOND_PASS = 24  # atoms that a pass of its own for symmetric crystals must save, measured on one core


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a potential says about one crystal; every number is NaN where ``problem`` says why.

    Attributes:
        energy: eV/atom.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å³, dE/dstrain / volume, symmetric.
        magmoms: (n,) μB, or None where the potential has none.
        problem: empty, or why there is no answer.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray
    magmoms: np.ndarray | None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class BatchEvaluation:
    """What a potential says about a batch, as float64 tensors on the batch's device; NaN where ``problems`` says why.

    Attributes:
        energy: per crystal, (B,) eV/atom.
        forces: per atom, (N, 3) eV/Å.
        stress: per crystal, (B, 3, 3) eV/Å³.
        magmoms: per atom, (N,) μB or None.
        problems: per crystal, empty or why there is no answer.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor | None
    problems: list[str]

    @classmethod
    def joined(cls, parts: Sequence[BatchEvaluation]) -> BatchEvaluation:
        """The evaluations of several batches as that of one; moments only if all have them."""
        moments = [part.magmoms for part in parts if part.magmoms is not None]
        return cls(
            torch.cat([part.energy for part in parts]),
            torch.cat([part.forces for part in parts]),
            torch.cat([part.stress for part in parts]),
            torch.cat(moments) if len(moments) == len(parts) else None,
            [problem for part in parts for problem in part.problems],
        )

    @classmethod
    def unknown(cls, batch: Batch, problems: list[str], *, magmoms: bool) -> BatchEvaluation:
        """All numbers NaN, for others to fill in."""
        nan = batch.positions.new_full
        moments = nan((len(batch.numbers),), torch.nan) if magmoms else None
        return cls(
            nan((len(batch),), torch.nan), nan(batch.positions.shape, torch.nan),
            nan((len(batch), 3, 3), torch.nan), moments, problems,
        )  # fmt: skip

    def split(self, counts: Tensor) -> list[Evaluation]:
        """One `Evaluation` per crystal."""
        sizes = counts.tolist()
        forces = [part.cpu().numpy() for part in self.forces.split(sizes)]
        moments = [None] * len(sizes) if self.magmoms is None else [m.cpu().numpy() for m in self.magmoms.split(sizes)]
        return [
            Evaluation(float(energy), force, stress, moment, problem)
            for energy, force, stress, moment, problem in zip(
                self.energy.tolist(), forces, self.stress.cpu().numpy(), moments, self.problems, strict=True
            )
        ]


class Potential(Protocol):
    """Anything that gives energy, forces and stress of crystals."""

    name: str
    version: str
    device: torch.device

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        ...

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch on ``device``; the path of the relaxer, without crystals.

        Args:
            batch: the crystals.
            symmetry: per crystal the projector on operations that it has exactly, or None; a potential may use it to
                do less, never to say something else.
        """
        ...


class CHGNetPotential:
    """CHGNet with the trained weights that the ``chgnet`` package carries.

    Args:
        model: "0.3.0" (GGA and GGA+U, MP2020 corrections) or "r2scan".
        device: "cpu" or "cuda".
        dtype: float32 as trained, or float64. Geometry is float64 in either.
        memory_mb: what one piece of a batch may take; more crystals are computed in turn. On a CPU small pieces stay
            in the cache and are faster; on a GPU take a few thousand. One crystal alone may take five times as much.
            If it needs more, it is computed with a fifth of the memory in a third more time; if that is still too
            much, it has a ``problem``. Where a GPU has less memory than that, the batch and the budget are halved.
    """

    name = "CHGNet"

    def __init__(
        self, model: str = "0.3.0", *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
        memory_mb: float = 200.0,
    ) -> None:  # fmt: skip
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        if memory_mb <= 0:
            raise ValueError(f"memory_mb must be positive, got {memory_mb}")
        self.version = model
        self.device = torch.device(device)
        self.bytes = memory_mb * 2**20 * (4 / dtype.itemsize)
        self.network = CHGNetNetwork(_load(model), device=device, dtype=dtype)
        self.sphere = 4 / 3 * np.pi * self.network.atom_cutoff**3  # Å³

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        return _evaluate(self, crystals)

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch on ``device``; a symmetric crystal by one atom, bond and angle of each orbit."""
        problems = self._problems(batch)
        result = BatchEvaluation.unknown(batch, problems, magmoms=True)
        good = [i for i, problem in enumerate(problems) if not problem]
        groups = self._worth_reducing(batch, good, symmetry)
        for chosen in ([i for i in good if i not in groups], list(groups)):
            if not chosen:
                continue
            mine = torch.zeros_like(batch.counts, dtype=torch.bool)
            mine[chosen] = True
            part, atoms = batch if mine.all() else select(batch, mine), mine[batch.owner]
            pieces = self._reduced(part, list(groups.values())) if chosen[0] in groups else self._fitting(part)
            found = BatchEvaluation.joined(pieces)
            assert result.magmoms is not None and found.magmoms is not None
            result.energy[mine], result.forces[atoms], result.stress[mine] = found.energy, found.forces, found.stress
            result.magmoms[atoms] = found.magmoms
            for index, problem in zip(chosen, found.problems, strict=True):
                problems[index] = problem
        _mark_not_finite(result, batch)
        return result

    def _worth_reducing(
        self, batch: Batch, good: Sequence[int], symmetry: Sequence[Projector | None] | None
    ) -> dict[int, Projector]:
        """Symmetric crystals, by place; none where computing their orbits saves less than a second pass costs."""
        groups = {
            i: group for i in good if symmetry and (group := symmetry[i]) is not None and group.action is not None
        }
        saved = sum(int(batch.counts[i]) - group.orbits for i, group in groups.items())
        return groups if saved >= SECOND_PASS else {}

    def _reduced(self, batch: Batch, groups: Sequence[Projector]) -> list[BatchEvaluation]:
        """Symmetric crystals in pieces; one that is large even so is computed as any other."""
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        actions = [group.action for group in groups if group.action is not None]
        density = batch.counts / torch.linalg.det(batch.lattice).abs()
        bonds = density * self.sphere  # of an atom
        angles = (bonds * (self.network.bond_cutoff / self.network.atom_cutoff) ** 3) ** 2 / 2
        kept = torch.tensor([len(a.carriers) / len(a.first) for a in actions], device=self.device)  # operations an apex
        orbits = torch.tensor([group.orbits for group in groups], device=self.device)
        cost = (orbits * (2 * bonds * BYTES + angles * kept * LISTED)).tolist()
        found = []
        for start, stop in _runs(cost, self.bytes):
            part, some = _slice(batch, start, stop, first_atom), groups[start:stop]
            evaluation = None
            if cost[start] < self.bytes:
                with contextlib.suppress(torch.OutOfMemoryError):
                    graph, node = quotient(part, Action.joined(actions[start:stop]), self.network)
                    evaluation = self._compute(graph, part, node)
            found += self._fitting(part) if evaluation is None else [_averaged(evaluation, part, some)]
        return found

    def _fitting(self, batch: Batch, *, lean: bool = False) -> list[BatchEvaluation]:
        """The batch in pieces that the device has memory for."""
        with contextlib.suppress(torch.OutOfMemoryError):
            return [self._compute(graph, part) for part, graph in self._pieces(batch, lean)]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.bytes /= 2
        if len(batch) > 1:
            first = torch.arange(len(batch), device=self.device) < len(batch) // 2
            return self._fitting(select(batch, first)) + self._fitting(select(batch, ~first))
        if not lean:
            return self._fitting(batch, lean=True)
        problem = f"{self.device} has too little memory for its {len(batch.numbers)} atoms"
        return [BatchEvaluation.unknown(batch, [problem], magmoms=True)]

    def _problems(self, batch: Batch) -> list[str]:
        """Why a crystal cannot be evaluated, from its cell and elements alone."""
        tests = broken_cells(batch, self.network.atom_cutoff)
        tests[f"element beyond {self.network.elements}"] = _any(batch.numbers > self.network.elements, batch)
        tests["too dense"] = batch.counts**2 * self.sphere / torch.linalg.det(batch.lattice).abs() > MAX_BONDS
        columns = zip(*(test.tolist() for test in tests.values()), strict=True)
        return [next((name for name, hit in zip(tests, row, strict=True) if hit), "") for row in columns]

    def _pieces(self, batch: Batch, lean: bool) -> Iterator[tuple[Batch, Graph | None]]:
        """Runs of crystals whose bonds and angles fit the memory, with their graphs; None where one crystal cannot."""
        bonds = undirected_bonds(batch, self.network.atom_cutoff)
        crystal = batch.owner[bonds.center]
        first_bond = torch.searchsorted(crystal, torch.arange(len(batch) + 1, device=self.device))
        angles = angle_counts(bonds, len(batch.numbers), self.network.bond_cutoff)
        pairs = _sum(angles.double(), batch) + first_bond.diff() * 2
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        edges, most = first_bond.tolist(), LARGEST * self.bytes
        for start, stop in _runs((pairs * BYTES).tolist(), self.bytes):
            part, need = _slice(batch, start, stop, first_atom), float(pairs[start:stop].sum())
            if not lean and need * LEAN_BYTES > most:
                yield part, None
                continue
            piece: Bonds = bonds.part(edges[start], edges[stop], first_atom[start])
            yield part, build_graph(piece, part, self.network.bond_cutoff, lean=lean or need * BYTES > most)

    def _compute(self, graph: Graph | None, batch: Batch, node: Tensor | slice = slice(None)) -> BatchEvaluation:
        if graph is None:
            problem = f"{len(batch.numbers)} atoms need more than {LARGEST} times memory_mb; raise it"
            return BatchEvaluation.unknown(batch, [problem], magmoms=True)
        site_energy, magmoms, gradient = self.network.bond_gradient(graph)
        energy = _sum(site_energy[node], batch) / batch.counts
        forces = torch.zeros_like(batch.positions)
        forces.index_add_(0, graph.center, gradient).index_add_(0, graph.neighbor, -gradient)
        outer = graph.vector[:, :, None] * gradient[:, None, :]
        virial = torch.zeros_like(batch.lattice).index_add_(0, batch.owner[graph.center], outer)
        stress = (virial + virial.mT) / 2 / torch.linalg.det(batch.lattice).abs()[:, None, None]
        return BatchEvaluation(energy, forces, stress, magmoms[node].double(), [""] * len(batch))


class ASEPotential:
    """Any ASE calculator with energy, forces and stress as a `Potential`.

    Args:
        calculator: the calculator; it must support three-dimensional periodicity.
        name, version: recorded with the results.
    """

    def __init__(self, calculator: Any, *, name: str = "", version: str = "") -> None:
        self.calculator = calculator
        self.name = name or type(calculator).__name__
        self.version = version
        self.device = torch.device("cpu")

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals one by one; one that cannot be evaluated has a ``problem`` instead of raising."""
        return _evaluate(self, crystals)

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch crystal by crystal."""
        problems = ["" if ok else "not finite" for ok in _finite(batch).tolist()]
        result = BatchEvaluation.unknown(batch, problems, magmoms=False)
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        for i, problem in enumerate(problems):
            if problem:
                continue
            try:
                energy, forces, stress = self._one(_slice(batch, i, i + 1, first_atom).to_crystals()[0])
            except Exception as error:  # a calculator may raise anything; the others must still be computed
                problems[i] = f"{type(error).__name__}: {error}"
                continue
            result.energy[i], result.stress[i] = energy, torch.from_numpy(stress)
            result.forces[first_atom[i] : first_atom[i + 1]] = torch.from_numpy(forces)
        _mark_not_finite(result, batch)
        return result

    def _one(self, crystal: Crystal) -> tuple[float, np.ndarray, np.ndarray]:
        atoms = crystal.to_ase()
        atoms.calc = self.calculator
        return atoms.get_potential_energy() / len(atoms), atoms.get_forces(), atoms.get_stress(voigt=False)


def select(batch: Batch, keep: Tensor) -> Batch:
    """The crystals of a batch where the boolean ``keep`` (B,) is true."""
    atoms = keep[batch.owner]
    counts = batch.counts[keep]
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return Batch(batch.lattice[keep], batch.positions[atoms], batch.numbers[atoms], counts, owner)


def broken_cells(batch: Batch, cutoff: float) -> dict[str, Tensor]:
    """By reason, (B,) whether a crystal can have no neighbour list within ``cutoff`` Å."""
    finite = _finite(batch)
    volume = torch.linalg.det(batch.lattice).abs() > 1e-6
    sound = (finite & volume)[:, None, None]
    cell = torch.where(sound, batch.lattice, torch.eye(3, dtype=batch.lattice.dtype, device=batch.lattice.device))
    images = (2 * torch.floor(cutoff / heights(cell) + 0.5) + 1).prod(-1)
    return {"not finite": ~finite, "singular cell": ~volume, "needle cell": images > MAX_IMAGES}


def _slice(batch: Batch, start: int, stop: int, first_atom: list[int]) -> Batch:
    atoms = slice(first_atom[start], first_atom[stop])
    return Batch(
        batch.lattice[start:stop], batch.positions[atoms], batch.numbers[atoms], batch.counts[start:stop],
        batch.owner[atoms] - start,
    )  # fmt: skip


def _evaluate(potential: Potential, crystals: Sequence[Crystal]) -> list[Evaluation]:
    filled = [crystal for crystal in crystals if len(crystal)]
    results: Iterator[Evaluation] = iter([])
    if filled:
        batch = Batch.from_crystals(filled, device=potential.device, dtype=torch.float64)
        results = iter(potential.compute(batch).split(batch.counts))
    empty = Evaluation(np.nan, np.zeros((0, 3)), np.full((3, 3), np.nan), None, "no atoms")
    return [next(results) if len(crystal) else empty for crystal in crystals]


def _averaged(evaluation: BatchEvaluation, batch: Batch, groups: Sequence[Projector]) -> BatchEvaluation:
    """The same with forces and stress averaged over the operations of each crystal."""
    forces = evaluation.forces.split(batch.counts.tolist())
    return replace(
        evaluation,
        forces=torch.cat([group.atoms(rows) for group, rows in zip(groups, forces, strict=True)]),
        stress=torch.stack([group.cell(rows) for group, rows in zip(groups, evaluation.stress, strict=True)]),
    )


def _load(model: str) -> Any:
    from chgnet.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it loads
        return CHGNet.load(model_name=model, use_device="cpu", verbose=False)


def _sum(values: Tensor, batch: Batch) -> Tensor:
    """(B,) sums over the atoms of each crystal."""
    return values.new_zeros(len(batch)).index_add_(0, batch.owner, values)


def _any(flags: Tensor, batch: Batch) -> Tensor:
    return _sum(flags.double(), batch) > 0


def _finite(batch: Batch) -> Tensor:
    """(B,) whether lattice and positions of each crystal are finite."""
    lattice = torch.isfinite(batch.lattice).all(-1).all(-1)
    return lattice & ~_any(~torch.isfinite(batch.positions).all(-1), batch)


def _mark_not_finite(result: BatchEvaluation, batch: Batch) -> None:
    good = torch.isfinite(result.energy) & torch.isfinite(result.stress).all(-1).all(-1)
    good &= ~_any(~torch.isfinite(result.forces).all(-1), batch)
    for i, fine in enumerate(good.tolist()):
        result.problems[i] = result.problems[i] or ("" if fine else "energy or forces not finite")


def _runs(cost: list[float], limit: float) -> Iterator[tuple[int, int]]:
    """Consecutive runs whose summed cost stays within the limit, one item at least in each."""
    start, total = 0, 0.0
    for i, value in enumerate(cost):
        if i > start and total + value > limit:
            yield start, i
            start, total = i, 0.0
        total += value
    yield start, len(cost)
