"""Periodic neighbour lists of a whole batch at once, on any device, without extra packages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from model.crystals.batch import Batch

CANDIDATES_AT_ONCE = 4_000_000


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


def heights(lattice: Tensor) -> Tensor:
    """(B, 3) distances in Å between opposite faces of each cell (B, 3, 3)."""
    return 1.0 / torch.linalg.inv(lattice).norm(dim=-2)


def periodic_edges(
    positions: Tensor,
    lattice: Tensor,
    counts: Tensor,
    *,
    cutoff: float,
    receivers: Tensor | None = None,
    max_images: int = 100_000,
) -> Edges:
    """All pairs closer than ``cutoff``, images of an atom with itself included, the atom itself excluded.

    Args:
        positions: (N, 3) Cartesian in Å, anywhere.
        lattice: (B, 3, 3) rows in Å.
        counts: (B,) atoms per crystal.
        cutoff: Å.
        receivers: (K,) ascending, the atoms whose neighbours are wanted, or None for all.
        max_images: a cell so thin that it needs more periodic images than this is refused.

    Raises:
        ValueError: a cell is singular, not finite, or too thin.
    """
    with torch.no_grad(), in_full_precision(positions.device):
        return _periodic_edges(positions.detach(), lattice.detach(), counts, cutoff, receivers, max_images)


def _periodic_edges(
    positions: Tensor, lattice: Tensor, counts: Tensor, cutoff: float, receivers: Tensor | None, max_images: int
) -> Edges:
    device = positions.device
    if not (torch.isfinite(lattice).all() and torch.isfinite(positions).all()):
        raise ValueError("positions and lattices must be finite")
    if (torch.linalg.det(lattice).abs() < 1e-6).any():
        raise ValueError("a cell has no volume")
    inverse = torch.linalg.inv(lattice)
    # After wrapping, |fractional difference| <= 1/2, so images up to cutoff/height + 1/2 can be in reach.
    reach = torch.floor(cutoff * inverse.norm(dim=-2) + 0.5).long()
    images = (2 * reach + 1).prod(dim=-1)
    if int(images.max()) > max_images:
        raise ValueError(
            f"a cell needs {int(images.max())} periodic images within {cutoff} Å (limit {max_images}): too thin"
        )

    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), counts)
    fractional = torch.einsum("ni,nij->nj", positions, inverse[owner])
    cell = torch.floor(fractional)
    fractional = fractional - cell

    first = torch.cumsum(counts, 0) - counts
    chosen = torch.arange(len(positions), device=device) if receivers is None else receivers
    partners = counts[owner[chosen]]
    receiver = torch.repeat_interleave(chosen, partners)
    start = torch.repeat_interleave(_starts(partners) - first[owner[chosen]], partners)
    sender = torch.arange(len(receiver), device=device) - start
    table, table_start = _image_table(reach)

    parts = []
    per_pair = images[owner[receiver]]
    total = torch.cumsum(per_pair, 0)
    for low, high in _chunks(total):
        parts.append(
            _within(
                receiver[low:high],
                sender[low:high],
                per_pair[low:high],
                fractional,
                lattice,
                owner,
                table,
                table_start,
                cutoff,
            )
        )
    receiver, sender, image = (torch.cat(column) for column in zip(*parts, strict=True))
    shift = image + (cell[receiver] - cell[sender]).long()
    return Edges(receiver, sender, shift)


def _starts(counts: Tensor) -> Tensor:
    return torch.cumsum(counts, 0) - counts


def _chunks(total: Tensor) -> list[tuple[int, int]]:
    """Slices of the pair list with a bounded number of candidate images each."""
    if len(total) == 0 or int(total[-1]) <= CANDIDATES_AT_ONCE:
        return [(0, len(total))]
    marks = torch.arange(CANDIDATES_AT_ONCE, int(total[-1]), CANDIDATES_AT_ONCE, device=total.device)
    cuts = sorted({0, *torch.searchsorted(total, marks).tolist(), len(total)})
    return list(pairwise(cuts))


def _image_table(reach: Tensor) -> tuple[Tensor, Tensor]:
    """Integer image offsets of every crystal, concatenated, and where each crystal's begin."""
    size = 2 * reach + 1
    images = size.prod(dim=-1)
    start = _starts(images)
    crystal = torch.repeat_interleave(torch.arange(len(reach), device=reach.device), images)
    index = torch.arange(len(crystal), device=reach.device) - start[crystal]
    z = index % size[crystal, 2]
    y = (index // size[crystal, 2]) % size[crystal, 1]
    x = index // (size[crystal, 2] * size[crystal, 1])
    return torch.stack([x, y, z], dim=-1) - reach[crystal], start


def _within(
    receiver: Tensor,
    sender: Tensor,
    per_pair: Tensor,
    fractional: Tensor,
    lattice: Tensor,
    owner: Tensor,
    table: Tensor,
    table_start: Tensor,
    cutoff: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those closer than the cutoff among the pairs' images: receiver, sender, image relative to wrapped atoms."""
    crystal = owner[receiver]
    difference = fractional[sender] - fractional[receiver]
    nearest = -torch.round(difference)
    vector = torch.einsum("pi,pij->pj", difference + nearest, lattice[crystal])
    cartesian_table = torch.einsum("ti,tij->tj", table.to(lattice.dtype), lattice[_table_owner(table, table_start)])

    pair = torch.repeat_interleave(torch.arange(len(receiver), device=receiver.device), per_pair)
    image = torch.arange(len(pair), device=pair.device) - (_starts(per_pair) - table_start[crystal])[pair]
    square = (vector[pair] + cartesian_table[image]).square().sum(-1)
    keep = square < cutoff * cutoff
    shift = table[image[keep]] + nearest[pair[keep]].long()
    receiver, sender = receiver[pair[keep]], sender[pair[keep]]
    other = (receiver != sender) | (shift != 0).any(-1)
    return receiver[other], sender[other], shift[other]


def _table_owner(table: Tensor, table_start: Tensor) -> Tensor:
    index = torch.arange(len(table), device=table.device)
    return torch.searchsorted(table_start, index, right=True) - 1


MAX_IMAGES = 100_000  # periodic images of one cell within the cutoff


def broken_cells(batch: Batch, cutoff: float) -> dict[str, Tensor]:
    """By reason, (B,) whether a crystal can have no neighbour list within ``cutoff`` Å."""
    finite = batch.is_finite()
    volume = torch.linalg.det(batch.lattice).abs() > 1e-6
    sound = (finite & volume)[:, None, None]
    cell = torch.where(sound, batch.lattice, torch.eye(3, dtype=batch.lattice.dtype, device=batch.lattice.device))
    images = (2 * torch.floor(cutoff / heights(cell) + 0.5) + 1).prod(-1)
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
