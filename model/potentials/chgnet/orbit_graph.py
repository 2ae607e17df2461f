"""CHGNet on one atom, bond and angle per orbit of a space group.

CHGNet's features are invariants. Atoms, bonds and angles that an operation maps onto each other have the same features,
so one per orbit is enough, if every message is counted as often as it arrives. Let an orbit have |a| atoms, |β| bonds
or |α| angles. The |β| bonds of an orbit send |β| messages in either direction, all to atoms of one orbit. By symmetry
each of these receives equally many, |β|/|a|. Likewise each bond of an orbit receives |α|/|β| messages from an orbit of
angles in either direction. These ratios are `Pairs.message_weight`. The energy Σ |a| E_a is that of the whole crystal,
and its gradient with respect to the vectors of the chosen bonds gives the exact forces and virial, once these are
averaged over the operations.

Sizes of orbits follow from stabilizers: an object that s of the |G| operations leave unchanged has |G|/s images.

* A directed bond from an atom is left unchanged only by operations that keep this atom. Among the operations that keep
  an atom of orbit a, let s map a bond from it onto itself; then its orbit has |G|/s directed bonds. As undirected
  bonds these are half as many if some operation reverses the bond, and equally many otherwise.
* An angle is two directed bonds from its apex, in no order. Among the operations that keep the apex, let s map these
  two bonds onto themselves or onto each other; then its orbit has |G|/s angles.

Two objects are in the same orbit if the least of all their images is the same. Images are compared as whole numbers
made from atoms and cells (`model.symmetry.action.bond_key`), never by distances. It is enough to look at bonds from,
and angles at, the first atom of every orbit, because every orbit has some of those; the images of such a bond are those
by the operations that keep this atom.

Shapes: n atoms, N orbits of atoms (nodes); E directed bonds from the nodes, U orbits of undirected bonds, of which the
first S form angles; A angles at the nodes, P orbits of angles. The images of each bond or angle stand one after
another, from ``start`` on; all together they are I images of bonds and J of angles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.neighbors import periodic_edges
from model.potentials.chgnet.messages import Pairs
from model.potentials.chgnet.network import BondGraph, CHGNetNetwork, unordered_pairs
from model.symmetry.action import SymmetryAction, bond_key


@dataclass(frozen=True, eq=False, kw_only=True)
class _Bonds:
    """Directed bonds from the first atom of every orbit, and the orbits of undirected bonds.

    Attributes:
        center, neighbor: (E,) atoms.
        keys: (E,) number of each directed bond.
        image_keys: (I,) numbers of the directed bonds that the operations that keep the center map each bond onto.
        start: (E,) index of each bond's first image.
        orbit: (E,) orbit of each bond, < U; those that form angles come first.
        chosen: (U,) one bond of each orbit.
        size: (U,) |β|, undirected bonds in the orbit.
        short: S, number of orbits that form angles.
    """

    center: np.ndarray
    neighbor: np.ndarray
    keys: np.ndarray
    image_keys: np.ndarray
    start: np.ndarray
    orbit: np.ndarray
    chosen: np.ndarray
    size: np.ndarray
    short: int


@dataclass(frozen=True, eq=False)
class _Angles:
    """One angle of every orbit: ``ends`` (2, P) its two bonds of `_Bonds`, ``size`` (P,) |α|, angles in the orbit."""

    ends: np.ndarray
    size: np.ndarray


def orbit_graph(batch: Batch, action: SymmetryAction, network: CHGNetNetwork) -> tuple[BondGraph, Tensor]:
    """The graph of the orbits of a batch, and (n,) the node of each atom.

    Args:
        batch: moved only in ways that keep the symmetry since the action was determined, every atom still in its cell.
        action: of the whole batch.
        network: its cutoffs and precision are read.
    """
    tensor = partial(torch.as_tensor, device=batch.positions.device)
    nodes, node, atoms = np.unique(action.first, return_inverse=True, return_counts=True)
    edges = periodic_edges(
        batch.positions, batch.lattice, batch.counts, cutoff=network.atom_cutoff, receivers=tensor(nodes)
    )
    vector = edges.vectors(batch.positions, batch.lattice, batch.owner)  # (E, 3)
    close = (vector.square().sum(-1) < network.bond_cutoff**2).cpu().numpy()
    center, neighbor, cell = (part.cpu().numpy() for part in (edges.receiver, edges.sender, edges.shift))
    bonds = _bond_orbits(center, neighbor, cell, close, action)
    angles = _angle_orbits(bonds, action)

    nodes_of_bond = node[np.stack([center, neighbor])[:, bonds.chosen]]  # (2, U)
    bonds_of_angle = bonds.orbit[angles.ends]  # (2, P)
    # The bonds that form the chosen angle need not be the chosen ones of their orbits: their vectors follow.
    spanning, span = np.unique(angles.ends, return_inverse=True)
    rows = np.concatenate([bonds.chosen, spanning])

    def pairs(target: np.ndarray, count: np.ndarray) -> Pairs:
        return Pairs(tensor(target.ravel()), tensor(count.reshape(-1, 1)).to(network.dtype))

    graph = BondGraph(
        vector=vector[tensor(rows)],
        center=tensor(center[rows]),
        neighbor=tensor(neighbor[rows]),
        short=bonds.short,
        bonds=pairs(nodes_of_bond, bonds.size / atoms[nodes_of_bond]),
        angles=pairs(bonds_of_angle, angles.size / bonds.size[bonds_of_angle]),
        spans=tensor((len(bonds.chosen) + span).ravel()),
        apex=tensor(node[center[angles.ends[0]]]),
        sign=vector.new_ones(len(angles.size)),  # both bonds point away from the apex
        numbers=batch.numbers[tensor(nodes)],
        copies=tensor(atoms).to(vector.dtype),
        crystals=len(batch),
    )
    return graph, tensor(node)


def _bond_orbits(
    center: np.ndarray, neighbor: np.ndarray, cell: np.ndarray, close: np.ndarray, action: SymmetryAction
) -> _Bonds:
    """Orbits of the bonds (E,); the neighbour's ``cell`` (E, 3) is relative to the center's, ``close`` form angles."""
    start, image_keys = action.seen(center, neighbor, cell)
    reverse_start, reverse_keys = action.seen(neighbor, center, -cell)
    forward, backward = _least(image_keys, start), _least(reverse_keys, reverse_start)
    _, chosen, orbit = np.unique(np.minimum(forward, backward), return_index=True, return_inverse=True)
    order = np.argsort(~close[chosen], kind="stable")
    chosen, orbit = chosen[order], np.argsort(order)[orbit]

    keys = bond_key(center, neighbor, cell)
    bond = np.repeat(np.arange(len(center)), np.diff(action.begin)[center])  # (I,)
    stabilizer = _total(image_keys == keys[bond], start)
    is_reversed = forward == backward  # by some operation
    return _Bonds(
        center=center,
        neighbor=neighbor,
        keys=keys,
        image_keys=image_keys,
        start=start,
        orbit=orbit,
        chosen=chosen,
        size=(action.order[center] / stabilizer / np.where(is_reversed, 2, 1))[chosen],
        short=int(close[chosen].sum()),
    )


def _angle_orbits(bonds: _Bonds, action: SymmetryAction) -> _Angles:
    """Orbits of the angles between short bonds from one node."""
    short = np.flatnonzero(bonds.orbit < bonds.short)
    pairs = unordered_pairs(torch.from_numpy(bonds.center[short]), len(action.first))
    ends = np.stack([short[end.numpy()] for end in pairs])  # (2, A)
    apex = bonds.center[ends[0]]

    count = np.diff(action.begin)[apex]  # (A,) operations that keep the apex, so images of the angle
    start = np.cumsum(count) - count
    angle = np.repeat(np.arange(len(count)), count)  # (J,)
    values, image_rank = np.unique(bonds.image_keys, return_inverse=True)  # small numbers, so that two make one
    first_image = bonds.start[ends] - start  # (2, A) of either bond, counted from the first image of the angle
    image_ends = image_rank[first_image[:, angle] + np.arange(len(angle))]  # (2, J)
    images = _unordered(image_ends, len(values))
    themselves = _unordered(np.searchsorted(values, bonds.keys)[ends], len(values))

    _, chosen = np.unique(_least(images, start), return_index=True)
    stabilizer = _total(images == themselves[angle], start)
    return _Angles(ends[:, chosen], (action.order[apex] / stabilizer)[chosen])


def _least(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Least of every run of values; ``start`` is where the runs begin."""
    return np.minimum.reduceat(values, start) if len(start) else values[:0]


def _total(flags: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Number of true flags in every run."""
    return np.add.reduceat(flags, start, dtype=np.int64) if len(start) else np.empty(0, dtype=np.int64)


def _unordered(ends: np.ndarray, ranks: int) -> np.ndarray:
    """One number for two numbers (2, ...) below ``ranks`` in either order."""
    return ends.min(0) * ranks + ends.max(0)
