"""Generalised coordinates of atoms and cell, as in ASE's ``FrechetCellFilter``.

A crystal of n atoms has n + 3 rows: the atoms' positions in the undeformed cell (Å), and n times the logarithm of the
deformation gradient F, with ``lattice = lattice₀ Fᵀ``. The generalised forces (eV/Å) are the negative gradient of the
enthalpy in these coordinates, so the last three rows are about ``volume/n`` times the stress.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from model.crystals.batch import Batch
from model.potentials.interface import BatchEvaluation
from model.relaxation.state import Running
from model.symmetry.projector import Projector

Cell = Literal["full", "hydrostatic", "fixed_volume", "fixed"]


def generalised_forces(
    running: Running, batch: Batch, evaluation: BatchEvaluation, deformation: Tensor, *, cell: Cell, pressure: float
) -> Tensor:
    """(R, 3) eV/Å: forces in the undeformed cell, then the force on n log F; zero in rows that may not move.

    Args:
        running: the crystals in generalised coordinates.
        batch: the same crystals as they are.
        evaluation: of the batch.
        deformation: (B, 3, 3) deformation gradients F.
        cell: what of the lattice may change.
        pressure: external, eV/Å³.
    """
    rows = torch.zeros_like(running.row_position)
    rows[running.row_is_atom] = torch.einsum("ni,nij->nj", evaluation.forces, deformation[batch.owner])
    if cell != "fixed":
        external = pressure * torch.eye(3, dtype=rows.dtype, device=rows.device)
        virial = -cell_volume(batch.lattice)[:, None, None] * (evaluation.stress + external)
        if cell == "hydrostatic":
            virial = _isotropic(virial)
        logarithm = running.row_position[~running.row_is_atom].view(-1, 3, 3) / batch.counts[:, None, None]
        force = _frechet(logarithm.mT, virial @ torch.linalg.inv_ex(deformation.mT).inverse)
        if cell == "fixed_volume":
            force = force - _isotropic(force)
        rows[~running.row_is_atom] = (force / batch.counts[:, None, None]).view(-1, 3)
    return rows * running.row_moves[:, None]


def project_(forces: Tensor, mine: Tensor, is_atom: Tensor, projector: Projector) -> None:
    """Project the rows of ``forces`` (R, 3) of one crystal, ``mine`` (R,), onto those that keep its space group."""
    forces[mine & is_atom] = projector.atoms(forces[mine & is_atom])
    forces[mine & ~is_atom] = projector.cell(forces[mine & ~is_atom])


def cell_volume(lattice: Tensor) -> Tensor:
    """(B,) Å³ of lattices (B, 3, 3)."""
    return torch.linalg.det(lattice).abs()


def _isotropic(tensors: Tensor) -> Tensor:
    """(B, 3, 3) a third of each trace times the identity."""
    third = tensors.diagonal(dim1=-2, dim2=-1).mean(-1)
    return third[:, None, None] * torch.eye(3, dtype=tensors.dtype, device=tensors.device)


def _frechet(matrix: Tensor, direction: Tensor) -> Tensor:
    """Derivative of exp at ``matrix`` along ``direction`` (Higham, Functions of Matrices, eq. 3.16)."""
    block = torch.cat([torch.cat([matrix, direction], -1), torch.cat([torch.zeros_like(matrix), matrix], -1)], -2)
    return torch.linalg.matrix_exp(block)[..., :3, 3:]
