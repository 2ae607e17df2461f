"""What a network is trained on: crystals, chosen guests, noise, and the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Composition

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import periodic_edges
from model.diffusion.dataset import CrystalTable, DataConfig, load_crystals
from model.diffusion.loss import Objective, choose_guests, denoising_loss, strained, training_example
from tests.support.training import fluorite


class TestHeldOut:
    """Crystals whose formulas a file names are left out, however the file writes the formula."""

    def test_every_cell_of_a_formula_goes(self, dataset: Path, tmp_path: Path) -> None:
        held_out = tmp_path / "targets.csv"
        held_out.write_text("material_id,pretty_formula\nx,NaCl\ny,F8Ca4\n")
        everything = load_crystals(DataConfig(path=str(dataset)))
        rest = load_crystals(DataConfig(path=str(dataset), held_out=str(held_out)))
        formulas = {crystal.formula for group in rest.groups.values() for crystal in group}
        assert len(rest) == len(everything) - 2
        assert not {Composition(formula).reduced_formula for formula in formulas} & {"NaCl", "CaF2"}

    @pytest.mark.parametrize(
        ("text", "match"), [("name\nNaCl\n", "no column 'formula'; there are name"), (None, "exist")]
    )
    def test_a_wrong_file_is_named(self, dataset: Path, tmp_path: Path, text: str | None, match: str) -> None:
        held_out = tmp_path / "targets.csv"
        if text is not None:
            held_out.write_text(text)
        with pytest.raises(ValueError, match=match):
            load_crystals(DataConfig(path=str(dataset), held_out=str(held_out)))


def test_table_reads_back_the_crystals(dataset: Path) -> None:
    table = load_crystals(DataConfig(path=str(dataset)))
    assert {size: len(group) for size, group in table.groups.items()} == {2: 7, 12: 4}
    sodium_chloride = next(c for c in table.groups[2] if c.formula == "NaCl")
    assert sodium_chloride.volume == pytest.approx(3.99**3 / 2**0.5)
    assert sodium_chloride.numbers.tolist() == [11, 17]


def test_guests_weigh_more(dataset: Path) -> None:
    table = load_crystals(DataConfig(path=str(dataset), guests=("Li",), guest_weight=5.0))
    assert table.weights[12].sum() == 3 + 5.0


@pytest.mark.parametrize(("crystals", "expected"), [(None, 7 / 11), (4, 7 / 11)])
def test_every_crystal_is_drawn_equally_often(dataset: Path, crystals: int | None, expected: float) -> None:
    """7 of 11 crystals have two atoms, however batches are measured."""
    table, rng = load_crystals(DataConfig(path=str(dataset), guest_weight=1.0)), np.random.default_rng(0)
    sizes = np.concatenate([_sizes(table, rng, crystals) for _ in range(3000)])
    assert np.mean(sizes == 2) == pytest.approx(expected, abs=0.03)


def _sizes(table: CrystalTable, rng: np.random.Generator, crystals: int | None) -> list[int]:
    drawn = [len(crystal) for crystal in table.draw(24, rng, crystals=crystals)]
    assert len(drawn) == (crystals or 24 // drawn[0])
    return drawn


def test_batches_by_edges_hold_their_budget_and_draw_every_crystal_equally_often(dataset: Path) -> None:
    table, rng = load_crystals(DataConfig(path=str(dataset), guest_weight=1.0)), np.random.default_rng(0)
    batches = [table.draw_edges(400, rng, cutoff=4.0) for _ in range(20000)]
    sizes = np.concatenate([[len(crystal) for crystal in batch] for batch in batches])
    assert np.mean(sizes == 2) == pytest.approx(7 / 11, abs=0.03)
    edges = [len(periodic_edges(*_tensors(batch), cutoff=4.0)) for batch in batches[:100]]
    assert 200 < np.mean(edges) < 500


def _tensors(crystals: list[Crystal]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = Batch.from_crystals(crystals)
    return batch.positions, batch.lattice, batch.counts


def test_missing_data_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.parquet does not exist; see docs/training\.md"):
        load_crystals(DataConfig(path=str(tmp_path / "nowhere.parquet")))


def test_empty_split_is_refused(dataset: Path) -> None:
    with pytest.raises(ValueError, match="no crystal of split 'test'"):
        load_crystals(DataConfig(path=str(dataset), split="test"))


# --- objective ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({"guest_species": 1, "any_species": 0, "random_quarter": 0}, {4 / 12}),  # calcium
        ({"guest_species": 0, "any_species": 1, "random_quarter": 0}, {4 / 12, 8 / 12}),
        ({"guest_species": 0, "any_species": 0, "random_quarter": 1}, {3 / 12}),
        ({"guest_species": 0, "any_species": 0, "random_quarter": 0}, {1.0}),
    ],
)
def test_chosen_guests(changes: dict[str, float], shares: set[float]) -> None:
    rng = np.random.default_rng(0)
    drawn = [choose_guests(fluorite(), Objective(**changes), [20, 3], rng) for _ in range(30)]
    assert {guest.mean() for guest in drawn} == shares


def test_strain_keeps_fractional_coordinates() -> None:
    crystal = strained(fluorite(), 0.01, np.random.default_rng(0))
    deformation = np.linalg.inv(fluorite().lattice) @ crystal.lattice - np.eye(3)
    np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
    assert 0.001 < np.abs(deformation).max() < 0.05
    np.testing.assert_array_equal(crystal.fractional, fluorite().fractional)


def test_hosts_are_jittered_and_guests_noised() -> None:
    objective = Objective(guest_species=1, any_species=0, random_quarter=0, host_jitter=0.01, sigma_limits=(1, 1))
    clean, noised, sigma, guest = training_example([fluorite()] * 20, objective, ["Ca"], np.random.default_rng(0))
    moved = noised.positions - clean.positions
    assert sigma.tolist() == [1.0] * 20
    assert moved[guest].std().item() == pytest.approx(1.0, rel=0.15)
    assert moved[~guest].std().item() == pytest.approx(0.01, rel=0.15)


class Zero(torch.nn.Module):
    """A network that always predicts no displacement."""

    def forward(self, batch: Batch, sigma: torch.Tensor, guest: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(batch.positions)

    def output_size(self, sigma: torch.Tensor) -> torch.Tensor:
        return 2 * sigma


@pytest.mark.parametrize(("kind", "unit"), [("wrapped", 0.25), ("published", 0.5)])
def test_loss_is_the_squared_error_in_its_unit(kind: str, unit: float) -> None:
    """At noise far below the size of the cell both targets are minus the noise."""
    objective = Objective(guest_species=0, any_species=0, random_quarter=0, sigma_limits=(0.1, 0.1))
    example = training_example([fluorite()] * 2, objective, [], np.random.default_rng(0))
    clean, noised, sigma, guest = example
    square = (noised.positions - clean.positions).square().sum(-1) / 0.1**2
    loss = denoising_loss(Zero(), clean, noised, sigma, guest, kind=kind)
    torch.testing.assert_close(loss, unit * square, rtol=1e-3, atol=1e-5)
