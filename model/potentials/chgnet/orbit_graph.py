"""CHGNet on one atom, bond and angle of every orbit of a space group.

CHGNet's features are invariants, so atoms, bonds and angles that a symmetry operation carries into each other have the
same. One of each orbit is enough, if a message counts as often as it is heard: where an orbit of |β| bonds meets an
orbit of |a| atoms, every atom of it hears |β|/|a| of them; likewise a bond of |β| hears |α|/|β| of |α| angles. Energy,
forces and stress are exactly those of the whole crystal, once forces and virial are averaged over the operations.

Bonds are compared by whole numbers, atoms and cells, never by distances.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.crystals.neighbors import periodic_edges
from model.potentials.chgnet.messages import Pairs
from model.potentials.chgnet.network import CHGNetNetwork, Graph, unordered_pairs
from model.symmetry.action import Action, bond_key


def quotient(batch: Batch, action: Action, network: CHGNetNetwork) -> tuple[Graph, Tensor]:
    """The graph of the orbits of a batch, and (N,) the node of each atom.

    Args:
        batch: every atom in the cell in which the action saw it, moved in a way that keeps the symmetry.
        action: of the whole batch.
        network: its cutoffs and precision are read.
    """
    tensor = partial(torch.as_tensor, device=batch.positions.device)
    nodes, node, atoms = np.unique(action.first, return_inverse=True, return_counts=True)
    edges = periodic_edges(
        batch.positions, batch.lattice, batch.counts, cutoff=network.atom_cutoff, receivers=tensor(nodes)
    )
    vector = edges.vectors(batch.positions, batch.lattice, batch.owner)
    close = (vector.square().sum(-1) < network.bond_cutoff**2).cpu().numpy()
    center, neighbor, cell = (part.cpu().numpy() for part in (edges.receiver, edges.sender, edges.shift))

    start, keys = action.seen(center, neighbor, cell)
    own, bond = bond_key(center, neighbor, cell), np.repeat(np.arange(len(center)), np.diff(action.begin)[center])
    forward, fixing = _least(keys, start), _total(keys == own[bond], start)
    back_start, back_keys = action.seen(neighbor, center, -cell)
    backward = _least(back_keys, back_start)
    _, chosen, orbit = np.unique(np.minimum(forward, backward), return_index=True, return_inverse=True)
    order = np.argsort(~close[chosen], kind="stable")  # those with angles first
    chosen, orbit = chosen[order], np.argsort(order)[orbit]
    short = int(close[chosen].sum())
    bonds = (action.order[center] / fixing / np.where(forward == backward, 2, 1))[chosen]

    near = np.flatnonzero(orbit < short)
    ends = np.stack([near[end.numpy()] for end in unordered_pairs(torch.from_numpy(center[near]), len(batch.numbers))])
    many = np.diff(action.begin)[center[ends[0]]]  # operations that keep the apex of an angle where it is
    first = np.cumsum(many) - many
    angle = np.repeat(np.arange(len(many)), many)
    values, rank = np.unique(keys, return_inverse=True)
    turned = rank[(start[ends] - first)[:, angle] + np.arange(len(angle))]
    pairs, unturned = _unordered(turned, len(values)), _unordered(np.searchsorted(values, own)[ends], len(values))
    _, picked = np.unique(_least(pairs, first), return_index=True)
    angles = (action.order[center[ends[0]]] / _total(pairs == unturned[angle], first))[picked]
    ends = ends[:, picked]
    tips, spans = np.unique(ends, return_inverse=True)

    def heard(times: np.ndarray) -> Tensor:
        return tensor(times.reshape(-1, 1)).to(network.dtype)

    rows = np.concatenate([chosen, tips])
    sides = node[np.stack([center, neighbor])[:, chosen]]
    graph = Graph(
        vector=vector[tensor(rows)],
        center=tensor(center[rows]),
        neighbor=tensor(neighbor[rows]),
        short=short,
        bonds=Pairs(tensor(sides.ravel()), heard(bonds / atoms[sides])),
        angles=Pairs(tensor(orbit[ends].ravel()), heard(angles / bonds[orbit[ends]])),
        spans=tensor((len(chosen) + spans).ravel()),
        apex=tensor(node[center[ends[0]]]),
        sign=vector.new_ones(len(angles)),
        numbers=batch.numbers[tensor(nodes)],
        copies=tensor(atoms).to(vector.dtype),
        crystals=len(batch),
    )
    return graph, tensor(node)


def _least(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Least of every run of values; `start` is where they begin."""
    return np.minimum.reduceat(values, start) if len(start) else values[:0]


def _total(flags: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.add.reduceat(flags, start, dtype=np.int64) if len(start) else np.empty(0, dtype=np.int64)


def _unordered(ends: np.ndarray, ranks: int) -> np.ndarray:
    return ends.min(0) * ranks + ends.max(0)
