"""What may not change does not: volume, shape, space group. Against ASE's filters and constraints, same potential."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.units import GPa
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from model.potentials.ase import ASEPotential
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.relax import RelaxSettings, may_be_ranked, relax
from model.symmetry.projector import symmetric_start
from model.symmetry.space_group import space_group
from tests.support.crystals import rattled

torch.set_num_threads(1)
CPU = torch.device("cpu")


shaken = partial(rattled, width=0.1, strain=0.04)
METALS = [
    shaken(Crystal.from_ase(bulk("Cu", cubic=True)), seed=0),
    shaken(Crystal.from_ase(bulk("Al")), seed=1),
    shaken(Crystal.from_ase(bulk("Ni", cubic=True)), seed=2),
]
# Space groups with free coordinates and free cell shapes, far from their minima.
ANATASE = Crystal.from_pymatgen(
    Structure.from_spacegroup("I4_1/amd", Lattice.tetragonal(4.0, 9.2), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.215]])
)
CALCITE = Crystal.from_pymatgen(
    Structure.from_spacegroup(
        "R-3c", Lattice.hexagonal(5.4, 16.0), ["Ca", "C", "O"], [[0, 0, 0], [0, 0, 0.25], [0.25, 0, 0.25]]
    ).get_primitive_structure()
)
ALLOY = Crystal.from_pymatgen(
    Structure.from_spacegroup(
        "P4/mmm",
        Lattice.tetragonal(3.6, 4.1),
        ["Cu", "Au", "Pd"],
        [
            [0, 0, 0.31],
            [0.5, 0.5, 0],
            [0, 0.5, 0.5],
        ],
    )
)


@pytest.fixture(scope="module")
def emt() -> ASEPotential:
    return ASEPotential(EMT())


@pytest.fixture(scope="module")
def chgnet() -> CHGNetPotential:
    return CHGNetPotential()


@pytest.mark.parametrize(
    ("cell", "option"), [("hydrostatic", "hydrostatic_strain"), ("fixed_volume", "constant_volume")]
)
@pytest.mark.parametrize("pressure", [0.0, 8.0])
def test_cell_modes_are_ases_step_by_step(cell, option, pressure, emt) -> None:
    results = relax(METALS, emt, RelaxSettings(optimizer="fire", cell=cell, fmax=0.01, pressure=pressure))
    for crystal, result in zip(METALS, results, strict=True):
        atoms = crystal.to_ase()
        atoms.calc = EMT()
        optimizer = FIRE(FrechetCellFilter(atoms, scalar_pressure=pressure * GPa, **{option: True}), logfile=None)
        optimizer.run(fmax=0.0, steps=result.steps)
        assert result.converged and result.steps > 10
        np.testing.assert_allclose(result.final.lattice, atoms.cell.array, atol=1e-7)
        assert result.energy_final == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-9)


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_what_is_held_stays(optimizer, emt) -> None:
    size, shape = (
        relax(METALS, emt, RelaxSettings(cell=cell, optimizer=optimizer, fmax=0.01))
        for cell in ("hydrostatic", "fixed_volume")
    )
    for crystal, grown, bent in zip(METALS, size, shape, strict=True):
        assert grown.converged and bent.converged
        scale = np.cbrt(grown.final.volume / crystal.volume)
        np.testing.assert_allclose(grown.final.lattice, crystal.lattice * scale, rtol=1e-9, atol=1e-9)
        assert abs(grown.pressure) < 0.01 * len(crystal) / grown.final.volume / GPa and abs(scale - 1) > 1e-3
        assert bent.final.volume == pytest.approx(crystal.volume, rel=1e-9)
        assert np.abs(bent.final.lattice - crystal.lattice).max() > 1e-2


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_pressure_is_reached(optimizer, emt) -> None:
    for result in relax(METALS, emt, RelaxSettings(pressure=12.0, optimizer=optimizer, fmax=0.005)):
        left = 0.005 * len(result.final) / result.final.volume / GPa  # forces on the cell are V σ / n
        assert result.converged and result.pressure == pytest.approx(12.0, abs=left)


@pytest.mark.parametrize("optimizer", ["fire", "lbfgs"])
def test_the_space_group_survives_exactly(optimizer, chgnet) -> None:
    crystals = [ANATASE, CALCITE, ANATASE]
    settings = RelaxSettings(keep_symmetry=True, optimizer=optimizer, fmax=0.05)
    loose = relax(crystals, chgnet, settings.model_copy(update={"keep_symmetry": False}))
    for crystal, result, free in zip(crystals, relax(crystals, chgnet, settings, batch_size=2), loose, strict=True):
        group = space_group(crystal, 1e-4, -1.0)
        assert result.converged and result.steps > 0
        assert np.abs(result.final.lattice - crystal.lattice).max() > 0.02
        after = space_group(result.final, 1e-7, -1.0)
        assert group is not None and after is not None and after.number == group.number
        # both crystals are stable against symmetry breaking: the way without constraint ends in the same place
        assert result.energy_final < result.energy_initial - 0.005
        assert result.energy_final == pytest.approx(free.energy_final, abs=1e-3)


def test_symmetry_is_kept_as_ases_fix_symmetry_keeps_it(emt) -> None:
    (result,) = relax([ALLOY], emt, RelaxSettings(keep_symmetry=True, fmax=0.005))
    atoms = ALLOY.to_ase()
    atoms.calc = EMT()
    atoms.set_constraint(FixSymmetry(atoms, symprec=0.01))
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=500)
    assert result.converged
    assert result.energy_final == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=1e-5)
    np.testing.assert_allclose(result.final.to_ase().cell.cellpar(), atoms.cell.cellpar(), atol=0.02)


def test_a_crystal_is_moved_onto_the_group_it_nearly_has(emt) -> None:
    nearly = rattled(ALLOY, 3, width=5e-4)
    (result,) = relax([nearly], emt, RelaxSettings(keep_symmetry=True))
    assert space_group(nearly, 1e-7, -1.0).number == 1
    assert space_group(result.initial, 1e-7, -1.0).number == space_group(result.final, 1e-7, -1.0).number == 123
    noise, way = (
        np.linalg.norm((nearly.fractional - other.fractional) @ ALLOY.lattice, axis=1).max()
        for other in (ALLOY, result.initial)
    )
    assert way < 4 * noise  # its own step, the mean of its images', and two more, as operations are read off two atoms


def test_a_projector_keeps_what_is_symmetric_and_nothing_else() -> None:
    everything = np.ones(len(CALCITE), dtype=bool)
    crystal, projector = symmetric_start(CALCITE, everything, symprec=0.01, device=CPU)
    assert projector is not None and len(projector.rotations) == 12
    rng = torch.Generator().manual_seed(0)
    vectors, tensor = (torch.randn(n, 3, generator=rng, dtype=torch.float64) for n in (len(crystal), 3))
    for function, value in ((projector.atoms, vectors), (projector.cell, tensor)):
        once = function(value)
        torch.testing.assert_close(function(once), once)
        assert (once - value).abs().max() > 0.1
    # of the cell only length of and along the threefold axis are left, of the atoms one coordinate of oxygen
    singular = torch.linalg.svdvals(
        torch.stack([projector.cell(e.view(3, 3)).flatten() for e in torch.eye(9).double()])
    )
    assert int((singular > 1e-8).sum()) == 2
    basis = torch.eye(3 * len(crystal), dtype=torch.float64).view(-1, len(crystal), 3)
    singular = torch.linalg.svdvals(torch.stack([projector.atoms(e).flatten() for e in basis]))
    assert int((singular > 1e-8).sum()) == 1


def test_operations_that_would_move_fixed_atoms_are_left_out(chgnet) -> None:
    free = ANATASE.numbers == 8
    free[np.flatnonzero(free)[0]] = False
    _, every = symmetric_start(ANATASE, ANATASE.numbers == 8, symprec=0.01, device=CPU)
    _, some = symmetric_start(ANATASE, free, symprec=0.01, device=CPU)
    assert every is not None and some is not None and 1 < len(some.rotations) < len(every.rotations)
    (result,) = relax([ANATASE], chgnet, RelaxSettings(keep_symmetry=True, cell="fixed"), free=[free])
    assert result.converged
    np.testing.assert_allclose(result.final.fractional[~free], ANATASE.fractional[~free], atol=1e-9)


def test_crystals_without_symmetry_relax_freely(emt) -> None:
    kept, loose = (relax(METALS[:1], emt, RelaxSettings(keep_symmetry=keep))[0] for keep in (True, False))
    np.testing.assert_array_equal(kept.final.lattice, loose.final.lattice)


def test_the_time_of_a_run_ends_it_with_reasons(emt) -> None:
    done: list[int] = []
    results = relax(METALS, emt, batch_size=1, max_seconds=0.0, report=lambda index, result: done.append(index))
    assert [result.reason for result in results] == ["not_started"] * 3 and done == [0, 1, 2]
    assert not any(may_be_ranked(result) for result in results)

    first = iter([True])

    class Slow(EMT):
        def calculate(self, *args, **kwargs) -> None:
            super().calculate(*args, **kwargs)
            if next(first, None):
                import time

                time.sleep(0.3)

    results = relax(METALS, ASEPotential(Slow()), batch_size=2, max_seconds=0.2)
    assert [result.reason for result in results] == ["wall_time", "wall_time", "not_started"]
    assert may_be_ranked(results[0]) and np.isfinite(results[0].energy_final)
