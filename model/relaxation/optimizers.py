"""Optimizers of many crystals at once; see `model.relaxation.coordinates` for the coordinates.

Each is a frozen state with three methods: ``fresh`` makes the state before the first step, ``step`` turns forces into
displacements and the next state, and ``concave`` says for which crystals the energy bends down along the last step, so
that no minimum is near. Fields named ``row_...`` have one entry per row (atoms and cell rows), the others one per
crystal, so that crystals can be removed and added (`model.relaxation.state`). Energies are in eV per crystal, forces in
eV/Å. They are our own because those of ASE move one system at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def sum_rows(values: Tensor, owner: Tensor, crystals: int) -> Tensor:
    """(B,) sum over the rows (R, ...) of each crystal."""
    return values.new_zeros(crystals).index_add_(0, owner, values.flatten(1).sum(1))


def longest_row(rows: Tensor, owner: Tensor, crystals: int) -> Tensor:
    """(B,) norm of the longest row of each crystal; NaN stays NaN."""
    return rows.new_zeros(crystals).scatter_reduce_(0, owner, rows.norm(dim=-1), "amax")


@dataclass(frozen=True, eq=False, kw_only=True)
class Fire:
    """FIRE as in ``ase.optimize.fire`` (E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006)), one state per crystal.

    Attributes:
        row_velocity: per row, (R, 3).
        row_forces: per row, (R, 3) before the last step.
        timestep, mixing: per crystal, (B,).
        downhill: per crystal, (B,) steps since the last uphill one.
        started: per crystal, (B,) bool.
    """

    row_velocity: Tensor
    row_forces: Tensor
    timestep: Tensor
    mixing: Tensor
    downhill: Tensor
    started: Tensor

    @classmethod
    def fresh(cls, rows: int, crystals: int, device: torch.device) -> Fire:
        """The state before the first step."""
        ones = torch.ones(crystals, dtype=torch.float64, device=device)
        row = torch.zeros(rows, 3, dtype=torch.float64, device=device)
        return cls(
            row_velocity=row,
            row_forces=row,
            timestep=0.1 * ones,
            mixing=0.1 * ones,
            downhill=torch.zeros_like(ones),
            started=torch.zeros_like(ones, dtype=torch.bool),
        )

    def concave(self, forces: Tensor, owner: Tensor, is_atom: Tensor) -> Tensor:
        """(B,) whether the force along the last displacement has grown; ``forces`` in eV/Å."""
        growth = sum_rows(self.row_velocity * (forces - self.row_forces), owner, len(self.started))
        return self.started & (growth > 0)

    def step(self, forces: Tensor, energy: Tensor, owner: Tensor, is_atom: Tensor) -> tuple[Tensor, Fire]:
        """Displacement of every row (R, 3), and the next state; ``forces`` in eV/Å."""
        crystals = len(energy)
        velocity = self.row_velocity
        power = sum_rows(forces * velocity, owner, crystals)
        down = self.started & (power > 0)
        up = self.started & ~down
        speed, strength = (sum_rows(v * v, owner, crystals).sqrt() for v in (velocity, forces))
        turn = (self.mixing * speed / strength.clamp_min(1e-300))[owner, None] * forces
        mixed = (1 - self.mixing)[owner, None] * velocity + turn
        velocity = torch.where(down[owner, None], mixed, torch.zeros_like(velocity))
        quicken = down & (self.downhill > 5)
        timestep = torch.where(quicken, (self.timestep * 1.1).clamp_max(1.0), self.timestep)
        timestep = torch.where(up, timestep * 0.5, timestep)
        mixing = torch.where(quicken, self.mixing * 0.99, self.mixing)
        mixing = torch.where(up, torch.full_like(mixing, 0.1), mixing)
        downhill = torch.where(down, self.downhill + 1, torch.zeros_like(self.downhill))
        velocity = velocity + timestep[owner, None] * forces
        move = timestep[owner, None] * velocity
        length = sum_rows(move * move, owner, crystals).sqrt()
        move = move * (0.2 / length.clamp_min(0.2))[owner, None]
        return move, Fire(
            row_velocity=velocity,
            row_forces=forces,
            timestep=timestep,
            mixing=mixing,
            downhill=downhill,
            started=torch.ones_like(self.started),
        )


MEMORY = 16  # pairs of moves and force changes that L-BFGS remembers
LONGEST_MOVE = 0.2  # Å, of any row
START_CURVATURE = 40.0  # eV/Å², before anything is known
CELL_SCALE = 2.0  # Å, see Lbfgs
GROWTH = 2.0  # factor from one move to the next where the energy bends down
TINY = 1e-300


@dataclass(frozen=True, eq=False, kw_only=True)
class Lbfgs:
    """Limited-memory BFGS (Nocedal & Wright, alg. 7.4) with a trust radius, one state per crystal.

    The energy rises with strain as about ``n ε²`` and with displacements as ``u²``, so strain times √n is the
    coordinate in which all curvatures are alike; the cell rows (n log F) are scaled by ``CELL_SCALE/√n``. A rise in
    energy halves the trust radius and forgets the past. Where the energy bends down along the last step, moves grow
    until the trust radius bounds them: such a place is a plateau or the side of a saddle.

    Attributes:
        row_moves, row_changes: per row, (R, m, 3) last displacements and force changes, newest first.
        row_forces, row_last: per row, (R, 3) forces and displacement of the last step.
        weights: per crystal, (B, m) 1/(s·y), zero where there is no pair.
        radius: per crystal, (B,) Å.
        energy: per crystal, (B,) eV at the last step, +inf before.
    """

    row_moves: Tensor
    row_changes: Tensor
    row_forces: Tensor
    row_last: Tensor
    weights: Tensor
    radius: Tensor
    energy: Tensor

    @classmethod
    def fresh(cls, rows: int, crystals: int, device: torch.device) -> Lbfgs:
        """The state before the first step."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        history, row = zeros(rows, MEMORY, 3), zeros(rows, 3)
        radius = torch.full_like(zeros(crystals), LONGEST_MOVE)
        return cls(
            row_moves=history,
            row_changes=history,
            row_forces=row,
            row_last=row,
            weights=zeros(crystals, MEMORY),
            radius=radius,
            energy=torch.full_like(radius, torch.inf),
        )

    def step(self, forces: Tensor, energy: Tensor, owner: Tensor, is_atom: Tensor) -> tuple[Tensor, Lbfgs]:
        """Displacement of every row (R, 3), and the next state; ``forces`` in eV/Å, ``energy`` in eV."""
        crystals = len(energy)
        counts = sum_rows(is_atom[:, None].double(), owner, crystals)
        concave = self.concave(forces, owner, is_atom)
        scale = _row_scale(owner, is_atom, crystals)
        forces = forces * scale
        moves, changes, weights = self._remember(forces, owner, crystals)
        worse = energy > self.energy + 1e-3 * counts
        weights = torch.where(worse[:, None], torch.zeros_like(weights), weights)
        radius = torch.where(worse, self.radius * 0.5, (self.radius * 1.2).clamp_max(LONGEST_MOVE)).clamp_min(0.005)
        move = _two_loops(forces, moves, changes, weights, owner)
        uphill = sum_rows(move * forces, owner, crystals) <= 0
        weights = torch.where(uphill[:, None], torch.zeros_like(weights), weights)
        move = torch.where(uphill[owner, None], forces / START_CURVATURE, move)
        longest = longest_row(move, owner, crystals).clamp_min(TINY)
        grown = GROWTH * longest_row(self.row_last, owner, crystals)
        move = move * torch.where(concave, (grown / longest).clamp_min(1), torch.ones_like(grown))[owner, None]
        move = move * (radius / torch.maximum(longest_row(move, owner, crystals), radius))[owner, None]
        return move * scale, Lbfgs(
            row_moves=moves,
            row_changes=changes,
            row_forces=forces,
            row_last=move,
            weights=weights,
            radius=radius,
            energy=energy,
        )

    def concave(self, forces: Tensor, owner: Tensor, is_atom: Tensor) -> Tensor:
        """(B,) whether the force along the last displacement has grown; ``forces`` in eV/Å as for `step`."""
        change = self.row_forces - forces * _row_scale(owner, is_atom, len(self.energy))
        return sum_rows(self.row_last * change, owner, len(self.energy)) < 0

    def _remember(self, forces: Tensor, owner: Tensor, crystals: int) -> tuple[Tensor, Tensor, Tensor]:
        """The history with the last step in front; a step along negative curvature has weight zero."""
        change = self.row_forces - forces
        product = sum_rows(self.row_last * change, owner, crystals)
        floor = 1e-3 * sum_rows(self.row_last * self.row_last, owner, crystals)
        weight = torch.where(product > floor, 1 / product, torch.zeros_like(product))
        return (
            torch.cat([self.row_last[:, None], self.row_moves[:, :-1]], 1),
            torch.cat([change[:, None], self.row_changes[:, :-1]], 1),
            torch.cat([weight[:, None], self.weights[:, :-1]], 1),
        )


def _row_scale(owner: Tensor, is_atom: Tensor, crystals: int) -> Tensor:
    """(R, 1) factor of each row of forces, see `Lbfgs`."""
    counts = sum_rows(is_atom[:, None].double(), owner, crystals)
    return torch.where(is_atom, 1.0, counts.sqrt()[owner] / CELL_SCALE)[:, None]


def _two_loops(forces: Tensor, moves: Tensor, changes: Tensor, weights: Tensor, owner: Tensor) -> Tensor:
    """(R, 3) inverse Hessian times forces; history newest first."""
    crystals = len(weights)
    q, factors = forces, []
    for k in range(MEMORY):
        factors.append(weights[:, k] * sum_rows(moves[:, k] * q, owner, crystals))
        q = q - factors[k][owner, None] * changes[:, k]
    # 1/(w y·y) = s·y/y·y of the newest valid pair, the usual first guess of the inverse Hessian
    newest = (weights > 0).long().argmax(1)
    change = changes[torch.arange(len(owner), device=owner.device), newest[owner]]
    weight = weights[torch.arange(crystals, device=owner.device), newest]
    guess = 1 / (weight * sum_rows(change * change, owner, crystals))
    q = q * torch.where(weight > 0, guess, torch.full_like(guess, 1 / START_CURVATURE))[owner, None]
    for k in reversed(range(MEMORY)):
        back = weights[:, k] * sum_rows(changes[:, k] * q, owner, crystals)
        q = q + (factors[k] - back)[owner, None] * moves[:, k]
    return q


OPTIMIZERS: dict[str, Callable[[int, int, torch.device], Fire | Lbfgs]] = {"fire": Fire.fresh, "lbfgs": Lbfgs.fresh}
