"""SevenNet as a potential: batches in pieces that fit the memory, symmetric crystals by their orbits.

The energies are the network's own: those of GGA and GGA+U without corrections, or of r2SCAN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import broken_cells
from model.potentials.interface import BatchEvaluation, Evaluation, evaluate_crystals, mark_not_finite_
from model.potentials.sevennet.graph import AtomGraph, Orbits, build_graph, neighbours, proper
from model.potentials.sevennet.network import SevenNetNetwork
from model.potentials.sevennet.radial import table_index
from model.potentials.sevennet.weights import read_weights
from model.symmetry.projector import Projector

BYTES_PER_EDGE = 9_000  # peak memory in float32, measured by benchmarks/evaluate.py
MAX_OVER_BUDGET = 10  # times the budget, for one crystal alone


class SevenNetPotential:
    """SevenNet with the trained weights of the ``sevenn`` package, whose code is not used.

    Args:
        name: of the catalogue: "7net-0", "7net-l3i5", "7net-mf-0-pbe" or "7net-mf-0-r2scan".
        device: "cpu" or "cuda".
        dtype: float32 as trained, or float64. Geometry is float64 in either.
        memory_mb: memory limit of one piece of a batch; larger batches are computed in several pieces. A single crystal
            may use ten times as much; if that is too little, it has a ``problem``. If a GPU has less memory, the batch
            and the limit are halved.

    Raises:
        ImportError: the package ``sevenn`` is not installed.
        ValueError: an argument is wrong.
    """

    def __init__(
        self,
        name: str = "7net-l3i5",
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_mb: float = 150.0,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        if memory_mb <= 0:
            raise ValueError(f"memory_mb must be positive, got {memory_mb}")
        weights = read_weights(name)
        self.name, self.version = name, weights.version
        self.device = torch.device(device)
        self.network = SevenNetNetwork(weights, device=device, dtype=dtype)
        self.most_edges = memory_mb * 2**20 / BYTES_PER_EDGE * (4 / dtype.itemsize)  # of one piece
        self.sphere = 4 / 3 * np.pi * self.network.cutoff**3  # Å³

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation]:
        """Evaluate crystals of any size; one that cannot be evaluated has a ``problem`` instead of raising."""
        return evaluate_crystals(self, crystals)

    def compute(self, batch: Batch, symmetry: Sequence[Projector | None] | None = None) -> BatchEvaluation:
        """Evaluate a float64 batch on ``device``; a symmetric crystal by one atom of each orbit."""
        groups = [proper(group) for group in symmetry] if symmetry else [None] * len(batch)
        edges = self._expected_edges(batch, groups)
        problems = self._problems(batch, edges)
        result = BatchEvaluation.unknown(batch, problems, magmoms=False)
        good = [i for i, problem in enumerate(problems) if not problem]
        for run in _runs(good, edges.tolist(), self.most_edges):
            self._fill_fitting_(result, batch, run, groups)
        mark_not_finite_(result, batch)
        return result

    def _expected_edges(self, batch: Batch, groups: Sequence[Projector | None]) -> Tensor:
        """(B,) edges to the representatives of the orbits, from density; NaN or infinite for broken crystals."""
        nodes = [
            count if group is None else len(torch.unique(group.targets.min(0).values))
            for count, group in zip(batch.counts.tolist(), groups, strict=True)
        ]
        density = batch.counts / torch.linalg.det(batch.lattice).abs()
        return torch.tensor(nodes, device=density.device) * density * self.sphere

    def _problems(self, batch: Batch, edges: Tensor) -> list[str]:
        """Why a crystal cannot be evaluated, from its cell and elements alone."""
        problems = [""] * len(batch)
        unknown = self.network.place[batch.numbers.clamp(0, len(self.network.place) - 1)] < 0
        for atom in torch.nonzero(unknown).flatten().tolist():
            symbol = chemical_symbols[int(batch.numbers[atom])]
            problems[int(batch.owner[atom])] = f"{self.name} does not know {symbol}"
        tests = broken_cells(batch, self.network.cutoff)
        for name, hits in tests.items():
            for i in torch.nonzero(hits).flatten().tolist():
                problems[i] = problems[i] or name
        for i in torch.nonzero(edges > MAX_OVER_BUDGET * self.most_edges).flatten().tolist():
            needs = f"{int(batch.counts[i])} atoms need more than {MAX_OVER_BUDGET} times memory_mb; raise it"
            problems[i] = problems[i] or needs
        return problems

    def _fill_fitting_(
        self, result: BatchEvaluation, batch: Batch, run: Sequence[int], groups: Sequence[Projector | None]
    ) -> None:
        """`_fill_` in as many parts as the device has memory for."""
        with contextlib.suppress(torch.OutOfMemoryError):
            self._fill_(result, batch, run, groups)
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.most_edges /= 2
        if len(run) == 1:
            problem = f"{self.device} has too little memory for its {int(batch.counts[run[0]])} atoms"
            result.problems[run[0]] = problem
            return
        for part in (run[: len(run) // 2], run[len(run) // 2 :]):
            self._fill_fitting_(result, batch, part, groups)

    def _fill_(
        self, result: BatchEvaluation, batch: Batch, run: Sequence[int], groups: Sequence[Projector | None]
    ) -> None:
        """Evaluate some crystals of a batch together, and enter what is found."""
        mine = torch.zeros_like(batch.counts, dtype=torch.bool)
        mine[list(run)] = True
        part, some = batch if mine.all() else batch.select(mine), [groups[i] for i in run]
        orbits = Orbits.of(part, some)
        edges = neighbours(part, orbits, self.network.cutoff)
        graph = build_graph(part, orbits, edges, highest=self.network.highest, dtype=self.network.dtype)
        tables = [table_index(length) for length in graph.shortest(len(part)).tolist()]
        if len(set(tables)) > 1:  # what a crystal gets must not depend on which others are in the batch
            for table in sorted(set(tables)):
                self._fill_(result, batch, [i for i, t in zip(run, tables, strict=True) if t == table], groups)
            return
        energy, forces, stress = self._compute(graph, part, tables[0])
        for group, rows in zip(some, forces.split(part.counts.tolist()), strict=True):
            if group is not None:
                rows[:] = group.atoms(rows)
        for i, group in enumerate(some):
            if group is not None:
                stress[i] = group.cell(stress[i])
        result.energy[mine], result.forces[mine[batch.owner]], result.stress[mine] = energy, forces, stress

    def _compute(self, graph: AtomGraph, batch: Batch, table: int) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (B,), forces (N, 3) and stresses (B, 3, 3), before they are averaged over the operations."""
        node_energy, gradient = self.network.energy_gradient(graph, table)
        energy = torch.zeros_like(batch.lattice[:, 0, 0]).index_add_(0, graph.owner, node_energy * graph.copies)
        forces = torch.zeros_like(batch.positions)
        forces.index_add_(0, graph.receiver, gradient).index_add_(0, graph.sender, -gradient)
        outer = graph.vector[:, :, None] * gradient[:, None, :]
        virial = torch.zeros_like(batch.lattice).index_add_(0, batch.owner[graph.receiver], outer)
        stress = (virial + virial.mT) / 2 / torch.linalg.det(batch.lattice).abs()[:, None, None]
        return energy / batch.counts, forces, stress


def _runs(items: Sequence[int], cost: Sequence[float], limit: float) -> Iterator[list[int]]:
    """Consecutive runs of items whose summed cost stays within the limit, one item at least in each."""
    run: list[int] = []
    total = 0.0
    for item in items:
        if run and total + cost[item] > limit:
            yield run
            run, total = [], 0.0
        run.append(item)
        total += cost[item]
    if run:
        yield run
