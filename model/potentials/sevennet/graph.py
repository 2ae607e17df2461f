"""The neighbours of a batch as SevenNet's network reads them: one node per orbit, in blocks with as many edges each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.neighbors import Edges, periodic_edges
from model.potentials.sevennet.convolution import Block
from model.potentials.sevennet.harmonics import turns
from model.symmetry.projector import Projector

BLOCK_EDGES = {"cpu": 512, "cuda": 32768}  # computed together; on a CPU, what they need stays in the cache


@dataclass(frozen=True, eq=False, kw_only=True)
class AtomGraph:
    """The E edges to R nodes: all n atoms of a batch, or one of each orbit. Those with few neighbours come first.

    Attributes:
        receiver, sender: (E,) atoms.
        vector: (E, 3) float64, Å, from the receiver to the sender's image.
        real: (E,) whether an edge is one; the others only fill up the blocks.
        blocks: the nodes and edges in blocks, in order.
        numbers: (R,) atomic numbers.
        owner: (R,) crystal of each node.
        copies: (R,) float64 number of atoms that each node stands for.
        node: (n,) node of each atom, or None without symmetry; then the blocks' senders are nodes.
        turns: per degree, (n, 2l+1, 2l+1) from the features of its node to those of an atom, or None without symmetry.
    """

    receiver: Tensor
    sender: Tensor
    vector: Tensor
    real: Tensor
    blocks: list[Block]
    numbers: Tensor
    owner: Tensor
    copies: Tensor
    node: Tensor | None
    turns: list[Tensor] | None

    def shortest(self, crystals: int) -> Tensor:
        """(B,) length of the shortest edge of each crystal in Å; infinite where it has none."""
        length = torch.where(self.real, self.vector.norm(dim=-1), torch.inf)
        per_node = torch.cat([length[block.edges].view(block.sender.shape).min(1).values for block in self.blocks])
        least = length.new_full((crystals,), torch.inf)
        return least.scatter_reduce(0, self.owner, per_node, "amin")


@dataclass(frozen=True, eq=False)
class Orbits:
    """Orbits of the atoms of a batch under proper rotations.

    Attributes:
        first: (n,) the atom that represents each atom.
        rotation: (n, 3, 3) of rows, which turns the representative's surroundings into the atom's; None if all are
            the identity.
    """

    first: Tensor
    rotation: Tensor | None

    @classmethod
    def of(cls, batch: Batch, groups: Sequence[Projector | None]) -> Orbits:
        """From the `proper` group of each crystal."""
        atoms = torch.arange(len(batch.numbers), device=batch.positions.device)
        if not any(groups):
            return cls(atoms, None)
        first = atoms.clone()
        rotation = torch.eye(3, dtype=torch.float64, device=atoms.device).repeat(len(atoms), 1, 1)
        start = (torch.cumsum(batch.counts, 0) - batch.counts).tolist()
        for begin, count, group in zip(start, batch.counts.tolist(), groups, strict=True):
            if group is not None:
                lowest = group.targets.min(0).values
                moved = group.targets[:, lowest] == atoms[:count]  # (G, n) whether it moves the lowest atom here
                first[begin : begin + count] = begin + lowest
                rotation[begin : begin + count] = group.rotations[moved.int().argmax(0)]
        return cls(first, rotation)


def proper(group: Projector | None) -> Projector | None:
    """The rotations of a group that are no reflections; None where these move no atom.

    The network has no parity, so that it gives a crystal and its mirror image slightly different energies.
    """
    if group is None:
        return None
    kept = torch.linalg.det(group.rotations) > 0
    targets = group.targets[kept]
    still = bool((targets == targets[:1]).all())
    return None if still else Projector(group.rotations[kept], targets)


def neighbours(batch: Batch, orbits: Orbits, cutoff: float) -> Edges:
    """Edges to the representative of every orbit."""
    receivers = torch.unique(orbits.first)
    return periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=cutoff, receivers=receivers)


def build_graph(batch: Batch, orbits: Orbits, edges: Edges, *, highest: int, dtype: torch.dtype) -> AtomGraph:
    """The graph of a batch; ``highest`` is the highest degree of the features, ``dtype`` their precision."""
    nodes, node, copies = torch.unique(orbits.first, return_inverse=True, return_counts=True)
    count = torch.bincount(edges.receiver, minlength=len(batch.numbers))[nodes]
    begin = torch.cumsum(count, 0) - count
    order = torch.argsort(count, stable=True)
    nodes, count, begin, copies = nodes[order], count[order], begin[order], copies[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)

    blocks, rows, real, senders, stop = [], [], [], [], 0
    for low, high, width in _runs(count.tolist(), BLOCK_EDGES[batch.positions.device.type]):
        position = torch.arange(width, device=count.device).expand(high - low, -1)
        filled = position < count[low:high, None]
        edge = torch.where(filled, begin[low:high, None] + position, -1)
        start, stop = stop, stop + edge.numel()
        sender = torch.cat([edges.sender, edges.sender.new_zeros(1)])[edge]
        senders.append(sender.flatten())
        source = sender if orbits.rotation is not None else place[node[sender]]
        blocks.append(Block(slice(low, high), slice(start, stop), source))
        rows.append(edge.flatten())
        real.append(filled.flatten())
    row, is_real = torch.cat(rows), torch.cat(real)
    vector = edges.vectors(batch.positions, batch.lattice, batch.owner)
    padding = vector.new_tensor([[1.0, 0.0, 0.0]])  # of any direction, as it counts for nothing
    return AtomGraph(
        receiver=torch.cat([edges.receiver, edges.receiver.new_zeros(1)])[row],
        sender=torch.cat(senders),
        vector=torch.cat([vector, padding])[row],
        real=is_real,
        blocks=blocks,
        numbers=batch.numbers[nodes],
        owner=batch.owner[nodes],
        copies=copies.double(),
        node=None if orbits.rotation is None else place[node],
        turns=None if orbits.rotation is None else [turn.to(dtype) for turn in turns(orbits.rotation, highest)],
    )


def _runs(counts: list[int], limit: int) -> list[tuple[int, int, int]]:
    """Runs of nodes (first, one after the last, edges of each) with at most ``limit`` edges; ``counts`` ascend."""
    found, start = [], 0
    for i in range(1, len(counts) + 1):
        if i == len(counts) or (i + 1 - start) * counts[i] > limit:
            found.append((start, i, max(counts[i - 1], 1)))
            start = i
    return found
