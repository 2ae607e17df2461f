"""Weights and their cards: they come back as they were, and what does not fit is refused."""

from pathlib import Path

import pytest
import torch
import yaml

from model.diffusion.checkpoint import PACKAGED_WEIGHTS, load_network, save_network, weights_file, weights_version
from model.diffusion.network import NetworkConfig, ScoreNetwork
from model.diffusion.paper_config import PaperNetworkConfig
from model.diffusion.paper_network import PaperNetwork
from tests.support.training import OURS, PAPER, settings, train


@pytest.mark.parametrize(("network", "kind"), [(OURS, ScoreNetwork), (PAPER, PaperNetwork)], ids=["ours", "papers"])
def test_weights_come_back_as_they_were(
    dataset: Path, tmp_path: Path, network: NetworkConfig | PaperNetworkConfig, kind: type
) -> None:
    trainer = train(settings(dataset, steps=3, average=0.0, network=network), tmp_path)
    loaded = load_network(tmp_path / "weights.safetensors")
    assert isinstance(loaded, kind)
    assert loaded.config == network
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    example = next(iter(trainer._validation_batches()))
    with torch.no_grad():
        assert torch.equal(loaded(example[1], *example[2:]), trainer.network(example[1], *example[2:]))


def test_card_tells_what_a_person_wants_to_know(dataset: Path, tmp_path: Path) -> None:
    trainer = train(settings(dataset, steps=3), tmp_path)
    card = yaml.safe_load((tmp_path / "weights.yaml").read_text())
    assert card["step"] == 3
    assert card["crystals"] == 11
    assert card["parameters"] == sum(parameter.numel() for parameter in trainer.network.parameters())
    assert card["data_digest"] == trainer.table.digest
    assert card["made_with"]["torch"] == torch.__version__ and card["made_with"]["commit"]
    assert card["metrics"]["validation"] == trainer.validate()["validation"]


def test_card_without_kind_is_ours(dataset: Path, tmp_path: Path) -> None:
    train(settings(dataset, steps=1), tmp_path)
    card = yaml.safe_load((tmp_path / "weights.yaml").read_text())
    del card["network"]["kind"]
    (tmp_path / "weights.yaml").write_text(yaml.safe_dump(card))
    assert load_network(tmp_path / "weights.safetensors").config == OURS


@pytest.mark.parametrize("missing", ["weights.safetensors", "weights.yaml"])
def test_missing_file_is_named(dataset: Path, tmp_path: Path, missing: str) -> None:
    train(settings(dataset, steps=1), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=rf"{missing} does not exist; use small, base, or a .safetensors"):
        load_network(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", PACKAGED_WEIGHTS)
def test_packaged_weights_go_by_their_names(name: str) -> None:
    file = weights_file(name)
    assert weights_version(file).startswith(name)
    network, card = load_network(file), yaml.safe_load(file.with_suffix(".yaml").read_text())
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    assert file.stat().st_size < {"small": 5e6, "base": 25e6}[name]
    assert card["step"] == card["config"]["steps"] == card["metrics"]["step"]


def test_small_weights_are_taken_when_none_are_named(tmp_path: Path) -> None:
    assert weights_file(None) == weights_file("small")
    assert weights_file(str(tmp_path / "base.safetensors")) == tmp_path / "base.safetensors"


def test_weights_that_do_not_fit_their_card_are_refused(tmp_path: Path) -> None:
    state = ScoreNetwork(OURS).state_dict()
    path = tmp_path / "weights.safetensors"
    save_network(state, {"network": OURS.model_copy(update={"layers": 3}).model_dump(mode="json")}, path)
    with pytest.raises(ValueError, match="does not fit the network described in"):
        load_network(path)
    path.write_text("no tensors")
    with pytest.raises(ValueError, match="does not fit the network described in"):
        load_network(path)


@pytest.mark.parametrize("card", ["a: [1\n", "[]\n", "network: {kind: unknown}\n"])
def test_another_file_in_place_of_the_card_is_refused(tmp_path: Path, card: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_network(ScoreNetwork(OURS).state_dict(), {"network": OURS.model_dump(mode="json")}, path)
    path.with_suffix(".yaml").write_text(card)
    with pytest.raises(ValueError, match=r"weights\.yaml is not the card of a score model"):
        load_network(path)


def test_card_must_describe_a_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind"):
        save_network({}, {"network": {"kind": "unknown"}}, tmp_path / "weights.safetensors")


def test_version_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_network({"a": torch.zeros(2)}, {"network": OURS.model_dump(mode="json")}, path)
    first = weights_version(path)
    save_network({"a": torch.ones(2)}, {"network": OURS.model_dump(mode="json")}, path)
    assert first.startswith("weights-")
    assert weights_version(path) != first
