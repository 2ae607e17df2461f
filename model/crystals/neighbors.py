"""Periodic neighbour lists of a whole batch at once, on any device.

Own code instead of `vesin` or torch-sim's lists, because a relaxation that keeps the symmetry needs the neighbours of
one atom per orbit only (``receivers``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal

CANDIDATES_AT_ONCE = 4_000_000
MAX_IMAGES = 100_000  # periodic images of one cell within the cutoff


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges of a batch, sorted by receiver and then by sender.

    Attributes:
        receiver: per edge, (E,) int64 atom that the message goes to.
        sender: per edge, (E,) int64 atom that the message comes from.
        shift: per edge, (E, 3) int64 cell of the sender's image relative to the receiver, for the positions
            given when the list was built: ``vector = positions[sender] + shift @ lattice - positions[receiver]``.
    """

    receiver: Tensor
    sender: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.receiver)

    def vectors(self, positions: Tensor, lattice: Tensor, owner: Tensor) -> Tensor:
        """(E, 3) vectors in Å from receiver to sender image; differentiable in positions and lattice."""
        with in_full_precision(positions.device):
            offset = torch.einsum("ei,eij->ej", self.shift.to(positions.dtype), lattice[owner[self.receiver]])
        return positions[self.sender] - positions[self.receiver] + offset


def in_full_precision(device: torch.device) -> torch.autocast:
    """Context for geometry, which mixed precision would round to hundredths of an Å."""
    return torch.autocast(device.type, enabled=False)


def periodic_edges(
    positions: Tensor, lattice: Tensor, counts: Tensor, *, cutoff: float, receivers: Tensor | None = None
) -> Edges:
    """All pairs closer than ``cutoff``, images of an atom with itself included, the atom itself excluded.

    Args:
        positions: (N, 3) Cartesian in Å, anywhere.
        lattice: (B, 3, 3) rows in Å.
        counts: (B,) atoms per crystal.
        cutoff: Å.
        receivers: (K,) ascending, the atoms whose neighbours are wanted, or None for all.

    Raises:
        ValueError: a cell is singular, not finite, or so thin that it needs more than `MAX_IMAGES` images.
    """
    with torch.no_grad(), in_full_precision(positions.device):
        return _periodic_edges(positions.detach(), lattice.detach(), counts, cutoff, receivers)


def _periodic_edges(
    positions: Tensor, lattice: Tensor, counts: Tensor, cutoff: float, receivers: Tensor | None
) -> Edges:
    device = positions.device
    if not (torch.isfinite(lattice).all() and torch.isfinite(positions).all()):
        raise ValueError("positions and lattices must be finite")
    if (torch.linalg.det(lattice).abs() < 1e-6).any():
        raise ValueError("a cell has no volume")
    inverse = torch.linalg.inv(lattice)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    fractional = torch.einsum("ni,nij->nj", positions, inverse[owner])
    cell = torch.floor(fractional)
    search = _ImageSearch.of(fractional - cell, lattice, owner, reach=_reach(inverse, cutoff), cutoff=cutoff)

    chosen = torch.arange(len(positions), device=device) if receivers is None else receivers
    partners = counts[owner[chosen]]
    receiver = torch.repeat_interleave(chosen, partners)
    start = torch.repeat_interleave(_starts(partners) - _starts(counts)[owner[chosen]], partners)
    sender = torch.arange(len(receiver), device=device) - start

    chunks = _chunks(torch.cumsum(search.counts[owner[receiver]], 0))
    parts = [search.within(receiver[low:high], sender[low:high]) for low, high in chunks]
    receiver, sender, image = (torch.cat(column) for column in zip(*parts, strict=True))
    shift = image + (cell[receiver] - cell[sender]).long()
    return Edges(receiver, sender, shift)


def _reach(inverse: Tensor, cutoff: float) -> Tensor:
    """(B, 3) images to each side within ``cutoff`` (Å) of the inverse cells: after wrapping, steps are at most 1/2."""
    return torch.floor(cutoff * inverse.norm(dim=-2) + 0.5)  # the norm is one over the spacing of the planes


def _starts(counts: Tensor) -> Tensor:
    return torch.cumsum(counts, 0) - counts


def _chunks(total: Tensor) -> list[tuple[int, int]]:
    """Slices of the pair list with a bounded number of candidate images each."""
    if len(total) == 0 or int(total[-1]) <= CANDIDATES_AT_ONCE:
        return [(0, len(total))]
    marks = torch.arange(CANDIDATES_AT_ONCE, int(total[-1]), CANDIDATES_AT_ONCE, device=total.device)
    cuts = sorted({0, *torch.searchsorted(total, marks).tolist(), len(total)})
    return list(pairwise(cuts))


@dataclass(frozen=True, eq=False, kw_only=True)
class _ImageSearch:
    """Wrapped atoms, and the images of their cells that may hold neighbours, one crystal's after the other's.

    Attributes:
        fractional: (N, 3) in [0, 1).
        lattice: (B, 3, 3).
        owner: (N,) crystal of each atom.
        cells: (T, 3) int64 images.
        vectors: (T, 3) the same in Å.
        counts, starts: (B,) how many images each crystal has, and where they begin.
        cutoff: Å.
    """

    fractional: Tensor
    lattice: Tensor
    owner: Tensor
    cells: Tensor
    vectors: Tensor
    counts: Tensor
    starts: Tensor
    cutoff: float

    @classmethod
    def of(cls, fractional: Tensor, lattice: Tensor, owner: Tensor, *, reach: Tensor, cutoff: float) -> _ImageSearch:
        """With ``reach`` (B, 3) images to each side of every cell."""
        size = 2 * reach.long() + 1
        counts = size.prod(dim=-1)
        if (most := int(counts.max())) > MAX_IMAGES:
            raise ValueError(f"a cell needs {most} periodic images within {cutoff} Å (limit {MAX_IMAGES}): too thin")
        starts = _starts(counts)
        crystal = torch.repeat_interleave(torch.arange(len(reach), device=reach.device), counts)
        index = torch.arange(len(crystal), device=reach.device) - starts[crystal]
        z = index % size[crystal, 2]
        y = (index // size[crystal, 2]) % size[crystal, 1]
        x = index // (size[crystal, 2] * size[crystal, 1])
        cells = torch.stack([x, y, z], dim=-1) - reach.long()[crystal]
        vectors = torch.einsum("ti,tij->tj", cells.to(lattice.dtype), lattice[crystal])
        return cls(
            fractional=fractional,
            lattice=lattice,
            owner=owner,
            cells=cells,
            vectors=vectors,
            counts=counts,
            starts=starts,
            cutoff=cutoff,
        )

    def within(self, receiver: Tensor, sender: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those closer than the cutoff among the pairs' images: receiver, sender, image relative to wrapped atoms."""
        crystal = self.owner[receiver]
        difference = self.fractional[sender] - self.fractional[receiver]
        nearest = -torch.round(difference)
        vector = torch.einsum("pi,pij->pj", difference + nearest, self.lattice[crystal])

        per_pair = self.counts[crystal]
        pair = torch.repeat_interleave(torch.arange(len(receiver), device=receiver.device), per_pair)
        image = torch.arange(len(pair), device=pair.device) - (_starts(per_pair) - self.starts[crystal])[pair]
        square = (vector[pair] + self.vectors[image]).square().sum(-1)
        keep = square < self.cutoff * self.cutoff
        shift = self.cells[image[keep]] + nearest[pair[keep]].long()
        receiver, sender = receiver[pair[keep]], sender[pair[keep]]
        other = (receiver != sender) | (shift != 0).any(-1)
        return receiver[other], sender[other], shift[other]


def pair_vectors(crystal: Crystal, *, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Periodic pairs within ``cutoff`` Å, each in both directions: first atom, second atom, (m, 3) vector in Å."""
    positions, lattice = torch.tensor(crystal.cartesian), torch.tensor(crystal.lattice)[None]
    edges = periodic_edges(positions, lattice, torch.tensor([len(crystal)]), cutoff=cutoff)
    vectors = edges.vectors(positions, lattice, torch.zeros(len(crystal), dtype=torch.long))
    return edges.receiver.numpy(), edges.sender.numpy(), vectors.numpy()


def pair_distances(crystal: Crystal, *, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Periodic pairs within ``cutoff`` Å, each in both directions: first atom, second atom, distance in Å.

    >>> salt = Crystal(5.64 / 2 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    >>> first, second, distance = pair_distances(salt, cutoff=3.0)
    >>> print(len(first), distance.max().round(2))
    12 2.82
    """
    first, second, vectors = pair_vectors(crystal, cutoff=cutoff)
    return first, second, torch.from_numpy(vectors).norm(dim=-1).numpy()


def broken_cells(batch: Batch, cutoff: float) -> dict[str, Tensor]:
    """By reason, (B,) whether a crystal can have no neighbour list within ``cutoff`` Å."""
    finite = batch.is_finite()
    volume = torch.linalg.det(batch.lattice).abs() > 1e-6
    sound = (finite & volume)[:, None, None]
    cell = torch.where(sound, batch.lattice, torch.eye(3, dtype=batch.lattice.dtype, device=batch.lattice.device))
    images = (2 * _reach(torch.linalg.inv(cell), cutoff) + 1).prod(-1)
    return {"not finite": ~finite, "singular cell": ~volume, "needle cell": images > MAX_IMAGES}


@dataclass(frozen=True, eq=False)
class Bonds:
    """Undirected bonds of a batch: center and neighbor (U,), vector (U, 3) in Å; sorted by center."""

    center: Tensor
    neighbor: Tensor
    vector: Tensor

    def part(self, start: int, stop: int, first_atom: int) -> Bonds:
        """The bonds start..stop with atoms counted from ``first_atom``."""
        return Bonds(
            self.center[start:stop] - first_atom, self.neighbor[start:stop] - first_atom, self.vector[start:stop]
        )


def undirected_bonds(batch: Batch, cutoff: float) -> Bonds:
    """Every pair of atom images closer than ``cutoff`` (Å) once."""
    edges = periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=cutoff)
    keep = _forward_half(edges)
    half = Edges(edges.receiver[keep], edges.sender[keep], edges.shift[keep])
    return Bonds(half.receiver, half.sender, half.vectors(batch.positions, batch.lattice, batch.owner))


def _forward_half(edges: Edges) -> Tensor:
    """Indices of one edge of each pair of opposite ones."""
    x, y, z = edges.shift.unbind(-1)
    image = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    same = edges.receiver == edges.sender
    return torch.nonzero((edges.receiver < edges.sender) | (same & image)).squeeze(-1)
