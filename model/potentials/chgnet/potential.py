"""CHGNet as a potential: batches in pieces that fit the memory, symmetric crystals by their orbits.

CHGNet 0.3.0's energies already hold the corrections of MP2020; nothing is added here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import Bonds, broken_cells, undirected_bonds
from model.potentials.chgnet.network import BondGraph, CHGNetNetwork, angle_counts, build_graph
from model.potentials.chgnet.orbit_graph import orbit_graph
from model.potentials.interface import BatchEvaluation, Evaluation, evaluate_crystals, mark_not_finite_
from model.symmetry.action import SymmetryAction
from model.symmetry.projector import Projector

WEIGHTS = {"chgnet-0.3.0": "0.3.0", "chgnet-r2scan": "r2scan"}  # as the package names them
MAX_BONDS = 3_000_000  # of one crystal, as expected from its density
# Peak memory in float32 per directed bond or ordered angle, measured by benchmarks/evaluate.py.
BYTES_PER_BOND, LEAN_BYTES_PER_BOND = 14_000, 3_000
BYTES_PER_OPERATION = 100  # bytes for an angle and an operation while orbits are sought
MAX_OVER_BUDGET = 5  # times the budget, for one crystal alone
SECOND_PASS = 24  # atoms that a pass of its own for symmetric crystals must save, measured on one core


class CHGNetPotential:
    """CHGNet with the trained weights of the ``chgnet`` package.

    Args:
        name: of the catalogue: "chgnet-0.3.0" (GGA and GGA+U, MP2020 corrections) or "chgnet-r2scan".
        device: "cpu" or "cuda".
        dtype: float32 as trained, or float64. Geometry is float64 in either.
        memory_mb: memory limit of one piece of a batch; larger batches are computed in several pieces. On a CPU, small
            pieces stay in the cache and are faster; on a GPU, use a few thousand. A single crystal may use five times
            as much. If it needs more, it is computed with a fifth of the memory in a third more time; if that is still
            too much, it has a ``problem``. If a GPU has less memory, the batch and the limit are halved.
    """

    def __init__(
        self,
        name: str = "chgnet-0.3.0",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_mb: float = 200.0,
    ) -> None:
        if name not in WEIGHTS:
            raise ValueError(f"CHGNet has the weights {', '.join(WEIGHTS)}, not {name!r}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        if memory_mb <= 0:
            raise ValueError(f"memory_mb must be positive, got {memory_mb}")
        self.name, self.version = name, version("chgnet")
        self.device = torch.device(device)
        self.bytes = memory_mb * 2**20 * (4 / dtype.itemsize)
        self.network = CHGNetNetwork(_load(WEIGHTS[name]), device=device, dtype=dtype)
        self.sphere = 4 / 3 * np.pi * self.network.atom_cutoff**3  # Å³

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        return evaluate_crystals(self, crystals)

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
            part, atoms = batch if mine.all() else batch.select(mine), mine[batch.owner]
            pieces = self._reduced(part, list(groups.values())) if chosen[0] in groups else self._fitting(part)
            found = BatchEvaluation.joined(pieces)
            assert result.magmoms is not None and found.magmoms is not None
            result.energy[mine], result.forces[atoms], result.stress[mine] = found.energy, found.forces, found.stress
            result.magmoms[atoms] = found.magmoms
            for index, problem in zip(chosen, found.problems, strict=True):
                problems[index] = problem
        mark_not_finite_(result, batch)
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
        per_apex = [len(action.to_representative) / len(action.first) for action in actions]  # operations
        kept = torch.tensor(per_apex, device=self.device)
        orbits = torch.tensor([group.orbits for group in groups], device=self.device)
        cost = (orbits * (2 * bonds * BYTES_PER_BOND + angles * kept * BYTES_PER_OPERATION)).tolist()
        found = []
        for start, stop in _runs(cost, self.bytes):
            part, some = batch.part(start, stop, first_atom), groups[start:stop]
            evaluation = None
            if cost[start] < self.bytes:
                with contextlib.suppress(torch.OutOfMemoryError):
                    graph, node = orbit_graph(part, SymmetryAction.joined(actions[start:stop]), self.network)
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
            return self._fitting(batch.select(first)) + self._fitting(batch.select(~first))
        if not lean:
            return self._fitting(batch, lean=True)
        problem = f"{self.device} has too little memory for its {len(batch.numbers)} atoms"
        return [BatchEvaluation.unknown(batch, [problem], magmoms=True)]

    def _problems(self, batch: Batch) -> list[str]:
        """Why a crystal cannot be evaluated, from its cell and elements alone."""
        tests = broken_cells(batch, self.network.atom_cutoff)
        tests[f"element beyond {self.network.elements}"] = batch.any_atom(batch.numbers > self.network.elements)
        tests["too dense"] = batch.counts**2 * self.sphere / torch.linalg.det(batch.lattice).abs() > MAX_BONDS
        columns = zip(*(test.tolist() for test in tests.values()), strict=True)
        return [next((name for name, hit in zip(tests, row, strict=True) if hit), "") for row in columns]

    def _pieces(self, batch: Batch, lean: bool) -> Iterator[tuple[Batch, BondGraph | None]]:
        """Runs of crystals whose bonds and angles fit the memory, with their graphs; None where one crystal cannot."""
        bonds = undirected_bonds(batch, self.network.atom_cutoff)
        crystal = batch.owner[bonds.center]
        first_bond = torch.searchsorted(crystal, torch.arange(len(batch) + 1, device=self.device))
        angles = angle_counts(bonds, len(batch.numbers), self.network.bond_cutoff)
        pairs = batch.sum_of_atoms(angles.double()) + first_bond.diff() * 2
        first_atom = [0, *torch.cumsum(batch.counts, 0).tolist()]
        edges, most = first_bond.tolist(), MAX_OVER_BUDGET * self.bytes
        for start, stop in _runs((pairs * BYTES_PER_BOND).tolist(), self.bytes):
            part, need = batch.part(start, stop, first_atom), float(pairs[start:stop].sum())
            if not lean and need * LEAN_BYTES_PER_BOND > most:
                yield part, None
                continue
            piece: Bonds = bonds.part(edges[start], edges[stop], first_atom[start])
            yield part, build_graph(piece, part, self.network.bond_cutoff, lean=lean or need * BYTES_PER_BOND > most)

    def _compute(self, graph: BondGraph | None, batch: Batch, node: Tensor | slice = slice(None)) -> BatchEvaluation:
        if graph is None:
            problem = f"{len(batch.numbers)} atoms need more than {MAX_OVER_BUDGET} times memory_mb; raise it"
            return BatchEvaluation.unknown(batch, [problem], magmoms=True)
        site_energy, magmoms, gradient = self.network.bond_gradient(graph)
        energy = batch.sum_of_atoms(site_energy[node]) / batch.counts
        forces = torch.zeros_like(batch.positions)
        forces.index_add_(0, graph.center, gradient).index_add_(0, graph.neighbor, -gradient)
        outer = graph.vector[:, :, None] * gradient[:, None, :]
        virial = torch.zeros_like(batch.lattice).index_add_(0, batch.owner[graph.center], outer)
        stress = (virial + virial.mT) / 2 / torch.linalg.det(batch.lattice).abs()[:, None, None]
        problems, lonely = self._isolated(graph, batch, node)
        energy[lonely], stress[lonely], forces[lonely[batch.owner]] = torch.nan, torch.nan, torch.nan
        moments = magmoms[node].double().masked_fill(lonely[batch.owner], torch.nan)
        return BatchEvaluation(energy=energy, forces=forces, stress=stress, magmoms=moments, problems=problems)

    def _isolated(self, graph: BondGraph, batch: Batch, node: Tensor | slice) -> tuple[list[str], Tensor]:
        """Per crystal, its problem if an atom has no neighbour, of which CHGNet knows nothing; and whether so."""
        bonded = torch.zeros(len(graph.numbers), dtype=torch.bool, device=batch.positions.device)
        bonded[graph.bonds.target] = True
        alone = torch.nonzero(~bonded[node]).flatten().tolist()
        problems = [""] * len(batch)
        first_atom = (torch.cumsum(batch.counts, 0) - batch.counts).tolist()
        for atom in reversed(alone):
            crystal = int(batch.owner[atom])
            name = f"atom {atom - first_atom[crystal] + 1} ({chemical_symbols[int(batch.numbers[atom])]})"
            problems[crystal] = f"{name} has no neighbour within {self.network.atom_cutoff:g} Å"
        return problems, torch.tensor([bool(problem) for problem in problems], device=batch.positions.device)


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


def _runs(cost: list[float], limit: float) -> Iterator[tuple[int, int]]:
    """Consecutive runs whose summed cost stays within the limit, one item at least in each."""
    start, total = 0, 0.0
    for i, value in enumerate(cost):
        if i > start and total + value > limit:
            yield start, i
            start, total = i, 0.0
        total += value
    yield start, len(cost)
