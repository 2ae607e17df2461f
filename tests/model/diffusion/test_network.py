"""One contract for both networks (symmetries, batching, edge cases); then what is particular to each."""

import copy
import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from e3nn import o3
from pymatgen.core import Lattice, Structure
from torch import Tensor, nn

from model.crystals.batch import Batch
from model.crystals.crystal import Crystal
from model.crystals.neighbors import periodic_edges
from model.diffusion.checkpoint import build_network
from model.diffusion.network import Convolution, NetworkConfig, ScoreNetwork, bessel_basis, build_graph, preconditioning
from model.diffusion.paper_config import PaperNetworkConfig
from model.diffusion.paper_network import ELEMENTS, PaperNetwork, edge_product
from tests.support.plain_network import PlainConvolution, plain

CONFIGS = {
    "hostguide": NetworkConfig(multiplicities=(16, 8), layers=2, cutoff=4.5),
    "hostguide, three degrees": NetworkConfig(multiplicities=(8, 4, 4), layers=2, cutoff=4.5),
    "paper": PaperNetworkConfig(
        layers=2,
        cutoff=4.5,
        node="6x0e",
        auxiliary="5x0e",
        hidden="6x0e + 4x1e",
        edge="3x0e + 3x1e + 2x2e",
        bessel=6,
        radial_hidden=8,
    ),
}
SIGMA = (0.3, 0.6, 1.5)  # Å, of the three crystals


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return random_network(request.param)


@functools.cache
def random_network(config: NetworkConfig | PaperNetworkConfig) -> nn.Module:
    """A network none of whose parameters is zero, so that no part of it is silent."""
    torch.manual_seed(1)
    built = build_network(config)
    with torch.no_grad():
        for parameter in built.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return built.requires_grad_(False)


@pytest.fixture
def crystals() -> list[Crystal]:
    """Rock salt NaCl, wurtzite ZnS and rutile TiO2 (2, 4 and 6 atoms), slightly disordered."""
    structures = [
        Structure(Lattice.from_parameters(3.99, 3.99, 3.99, 60, 60, 60), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        Structure.from_spacegroup(
            "P6_3mc", Lattice.hexagonal(3.82, 6.26), ["Zn", "S"], [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, 0.375]]
        ),
        Structure.from_spacegroup(
            "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [[0, 0, 0], [0.305, 0.305, 0]]
        ),
    ]
    rng = np.random.default_rng(0)
    perfect = [Crystal.from_pymatgen(structure) for structure in structures]
    return [c.replace(fractional=c.fractional + 0.04 * rng.standard_normal((len(c), 3))) for c in perfect]


def is_guest(crystal: Crystal) -> np.ndarray:
    """Na, Zn and Ti are the guests of the three crystals."""
    return np.isin(crystal.numbers, [11, 30, 22])


def predict(network: nn.Module, crystals: list[Crystal], sigma: tuple[float, ...] = SIGMA) -> Tensor:
    batch = Batch.from_crystals(crystals, dtype=torch.get_default_dtype())
    guest = torch.from_numpy(np.concatenate([is_guest(crystal) for crystal in crystals]))
    return network(batch, torch.tensor(sigma[: len(crystals)]), guest)


def assert_same(one: Tensor, other: Tensor) -> None:
    assert one.abs().max() > 1e-3  # two zeros would prove nothing
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


# --- both ---------------------------------------------------------------------------------------------------------


def test_rotated_crystals_give_rotated_displacements(network: nn.Module, crystals: list[Crystal]) -> None:
    rotation = o3.matrix_z(torch.tensor(0.7)) @ o3.matrix_y(torch.tensor(1.9)) @ o3.matrix_x(torch.tensor(-0.4))
    rotated = [crystal.replace(lattice=crystal.lattice @ rotation.numpy().T) for crystal in crystals]
    assert_same(predict(network, crystals) @ rotation.T, predict(network, rotated))


def test_translation_changes_nothing(network: nn.Module, crystals: list[Crystal]) -> None:
    shift = np.array([0.31, -2.77, 0.5])
    moved = [crystal.replace(fractional=crystal.fractional + shift) for crystal in crystals]
    assert_same(predict(network, crystals), predict(network, moved))


def test_wrapping_changes_nothing(network: nn.Module, crystals: list[Crystal]) -> None:
    assert_same(predict(network, crystals), predict(network, [crystal.wrapped() for crystal in crystals]))


def test_permuted_atoms_give_permuted_displacements(network: nn.Module, crystals: list[Crystal]) -> None:
    rutile = crystals[2]
    order = np.array([3, 0, 5, 1, 4, 2])
    permuted = rutile.replace(fractional=rutile.fractional[order], numbers=rutile.numbers[order])
    assert_same(predict(network, [rutile])[order], predict(network, [permuted]))


def test_choice_of_cell_changes_nothing(network: nn.Module, crystals: list[Crystal]) -> None:
    change = np.array([[1, 1, 0], [0, 1, -2], [0, 0, 1]])
    other = [
        crystal.replace(lattice=change @ crystal.lattice, fractional=crystal.fractional @ np.linalg.inv(change))
        for crystal in crystals
    ]
    assert_same(predict(network, crystals), predict(network, other))


def test_supercell_repeats_the_displacements(network: nn.Module, crystals: list[Crystal]) -> None:
    rutile = crystals[2]
    double = rutile.replace(
        lattice=np.diag([1, 2, 1]) @ rutile.lattice,
        fractional=np.concatenate([rutile.fractional, rutile.fractional + np.array([0, 1, 0])]) / [1, 2, 1],
        numbers=np.tile(rutile.numbers, 2),
    )
    assert_same(predict(network, [rutile]).repeat(2, 1), predict(network, [double]))


def test_ragged_batch_equals_one_by_one(network: nn.Module, crystals: list[Crystal]) -> None:
    single = [predict(network, [crystal], (sigma,)) for crystal, sigma in zip(crystals, SIGMA, strict=True)]
    assert_same(torch.cat(single), predict(network, crystals))


def test_isolated_atom_stays_where_it_is(network: nn.Module, crystals: list[Crystal]) -> None:
    alone = Crystal(30 * np.eye(3), [[0.2, 0.3, 0.4]], [11])
    assert predict(network, [alone]).abs().max() == 0
    assert predict(network, [alone, crystals[0]])[0].abs().max() == 0


def test_fused_atoms_give_finite_displacements_and_gradients(network: nn.Module) -> None:
    fused = Crystal(4 * np.eye(3), [[0, 0, 0], [0, 0, 0], [0.5, 0.4, 0.3]], [11, 11, 17])
    network = copy.deepcopy(network).requires_grad_(True)
    displacement = predict(network, [fused])
    displacement.square().sum().backward()
    assert torch.isfinite(displacement).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_known_edges_give_the_same(network: nn.Module, crystals: list[Crystal]) -> None:
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    edges = periodic_edges(batch.positions, batch.lattice, batch.counts, cutoff=network.config.cutoff)
    sigma, guest = torch.tensor(SIGMA), torch.ones(12, dtype=torch.bool)
    assert_same(network(batch, sigma, guest), network(batch, sigma, guest, edges))


# --- ours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hostguide", "hostguide, three degrees"])
def test_our_network_respects_inversion(name: str, crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS[name])
    inverted = [crystal.replace(lattice=-crystal.lattice) for crystal in crystals]
    assert_same(-predict(network, crystals), predict(network, inverted))


def test_noise_level_and_guests_are_inputs(crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS["hostguide"])
    batch, guest = Batch.from_crystals(crystals, dtype=torch.float64), torch.arange(12) % 2 == 0
    low, high = torch.full((3,), 0.2), torch.full((3,), 0.8)
    per_unit = [network(batch, s, guest) / network.output_size(s)[0] for s in (low, high)]
    assert (per_unit[0] - per_unit[1]).abs().max() > 1e-3
    assert (network(batch, low, guest) - network(batch, low, ~guest)).abs().max() > 1e-3


def test_noise_blind_network_sees_neither(crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS["hostguide"].model_copy(update={"noise_conditioned": False}))
    batch, guest = Batch.from_crystals(crystals, dtype=torch.float64), torch.arange(12) % 2 == 0
    low, high = torch.full((3,), 0.2), torch.full((3,), 0.8)
    assert_same(
        network(batch, low, guest) / network.output_size(low)[0],
        network(batch, high, ~guest) / network.output_size(high)[0],
    )


def test_preconditioning_is_sigma_when_small_and_the_scale_when_large() -> None:
    size = preconditioning(torch.tensor([1e-3, 1e3]), 1.2)
    torch.testing.assert_close(size, torch.tensor([1e-3, 1.2]), rtol=1e-5, atol=0)


def test_bessel_basis_is_smooth_at_the_cutoff() -> None:
    config = CONFIGS["hostguide"]
    length = torch.tensor([config.cutoff - 1e-4], requires_grad=True)
    basis = bessel_basis(length, config)
    slope = torch.autograd.grad(basis.abs().sum(), length)[0]
    assert basis.abs().max() < 1e-10
    assert slope.abs() < 1e-5
    assert bessel_basis(torch.tensor([config.cutoff + 1e-4]), config).abs().max() == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("multiplicities", [(16, 8), (8, 4, 4)])
def test_convolution_equals_plain_e3nn(
    multiplicities: tuple[int, ...], dtype: torch.dtype, tolerance: float, crystals: list[Crystal]
) -> None:
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    config = NetworkConfig(multiplicities=multiplicities, cutoff=4.5)
    convolution = Convolution(config, multiplicities)
    graph = build_graph(Batch.from_crystals(crystals, dtype=dtype), config)
    features = [torch.randn(12, 2 * degree + 1, m) for degree, m in enumerate(multiplicities)]
    with torch.no_grad():
        expected = PlainConvolution(convolution, config)(features, graph)
        for ours, theirs in zip(convolution(features, graph), expected, strict=True):
            assert (ours - theirs).abs().max() < tolerance * theirs.abs().max()


def test_gradient_gathered_from_neighbours_is_that_of_indexing(crystals: list[Crystal]) -> None:
    config = CONFIGS["hostguide, three degrees"]
    batch = Batch.from_crystals(crystals, dtype=torch.float64)
    graph = build_graph(batch, config)
    convolution = Convolution(config, config.multiplicities)
    gradients = []
    for one in (graph, dataclasses.replace(graph, reverse=None)):
        generator = torch.Generator().manual_seed(0)
        features = [
            torch.randn(len(batch.numbers), 2 * degree + 1, m, generator=generator, requires_grad=True)
            for degree, m in enumerate(config.multiplicities)
        ]
        sum(x.pow(3).sum() for x in convolution(features, one)).backward()
        gradients.append(torch.cat([x.grad.flatten() for x in features]))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_network_with_plain_convolutions_is_the_same(crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS["hostguide, three degrees"])
    assert_same(predict(network, crystals), predict(plain(network), crystals))


# --- the papers' --------------------------------------------------------------------------------------------------


def test_paper_network_has_the_stated_number_of_parameters() -> None:
    network = PaperNetwork(PaperNetworkConfig())
    assert len(ELEMENTS) == 89
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_655_808  # ICML paper, Table 2


def test_paper_network_does_not_respect_inversion(crystals: list[Crystal]) -> None:
    """Its vectors are pseudovectors: an inverted crystal is another crystal to it."""
    network = random_network(CONFIGS["paper"])
    inverted = [crystal.replace(lattice=-crystal.lattice) for crystal in crystals]
    displacement, mirrored = predict(network, crystals), predict(network, inverted)
    assert (displacement + mirrored).abs().max() > 1e-4 * displacement.abs().max()  # rotations hold to 1e-8


def test_paper_network_is_blind_to_noise_and_guests(crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS["paper"])
    batch, guest = Batch.from_crystals(crystals, dtype=torch.float64), torch.arange(12) % 2 == 0
    one, three = torch.ones(3), torch.full((3,), 3.0)
    assert_same(3 * network(batch, one, guest), network(batch, three, ~guest))


def test_paper_network_refuses_unknown_elements(crystals: list[Crystal]) -> None:
    network = random_network(CONFIGS["paper"])
    with pytest.raises(ValueError, match=r"not atomic numbers \[86, 95\]"):
        predict(network, [Crystal(5 * np.eye(3), [[0, 0, 0], [0.5, 0, 0]], [95, 86])])


def test_folded_weights_equal_the_product_with_repeated_harmonics() -> None:
    network = random_network(CONFIGS["paper"])
    interaction, edge = network.interactions[1], o3.Irreps(network.config.edge)
    product = edge_product(interaction.product.irreps_in1, edge, interaction.itself.irreps_out)
    vector, radial = torch.randn(20, 3), torch.rand(20, network.config.bessel)
    x = torch.randn(20, product.irreps_in1.dim)
    once = o3.spherical_harmonics("0e + 1e + 2e", vector, normalize=True, normalization="component")
    repeated = o3.spherical_harmonics(edge, vector, normalize=True, normalization="component")
    assert product.weight_numel == interaction.radial.hs[-1]
    assert_same(
        product(x, repeated, interaction.radial(radial)),
        interaction.product(x, once, interaction.edge_weights(radial)),
    )


def test_kind_tells_the_networks_apart() -> None:
    assert isinstance(build_network(NetworkConfig(layers=1)), ScoreNetwork)
    assert isinstance(build_network(CONFIGS["paper"]), PaperNetwork)
