"""Configurations made from questions on the command line."""

import importlib.util

import pytest
import yaml
from typer.testing import CliRunner

from search.cli import app
from search.config_file import check_config, load_config
from search.questions import configuration, explained


def checked(question, **options):
    return check_config(configuration(question, **options), source=question)


def test_a_chemical_system():
    config = checked("Li-Si", guests=["Li"], max_atoms=6, minutes=5)
    assert config.compositions.system == "Li-Si" and config.compositions.max_atoms == 6
    assert config.frameworks.guests == ("Li",) and config.policy.rounds == 1000


def test_compounds_are_terminals():
    config = checked("Li2S-P2S5", max_atoms=16)
    assert config.compositions.terminals == ("Li2S", "P2S5")
    assert "Li3PS4" in {cell.reduced for cell in config.compositions.expand()}
    assert config.compositions.elements == ("Li", "P", "S")


def test_filters_are_applied_together_and_say_when_nothing_is_left():
    compositions = {"system": "Li-Mn-O", "max_atoms": 12, "neutral": True, "families": ["AB2C4"], "max_formulas": 1}
    config = check_config({"name": "a", "compositions": compositions}, source="test")
    assert [cell.reduced for cell in config.compositions.expand()] == ["LiMn2O4"]
    with pytest.raises(ValueError, match="none of 220 compositions is left"):
        check_config({"name": "a", "compositions": {**compositions, "step": 0.4}}, source="test")


def test_a_formula_is_reduced():
    config = checked("Li10Si4", max_atoms=14)
    assert {str(cell) for cell in config.compositions.expand()} == {"Li5Si2", "Li10Si4"}


def test_a_host_is_filled_with_one_to_four_guests(tmp_path, lisi):
    path = tmp_path / "my host.cif"
    lisi.to_pymatgen().to(filename=str(path))
    config = checked(str(path), guests=["Li"], max_atoms=5)
    assert [str(cell) for cell in config.compositions.expand()] == ["Li2Si", "Li3Si", "Li4Si"]
    assert config.frameworks.files == (str(path),) and config.name == "my-host-Li"


def test_a_known_phase_is_a_host():
    config = checked("mp-2156", guests=["Li"], max_atoms=10)  # TiS2, nine atoms
    assert [str(cell) for cell in config.compositions.expand()] == ["LiS6Ti3"]
    assert config.frameworks.files == ("mp-2156",)


@pytest.mark.parametrize("installed", [True, False])
def test_a_judge_that_is_installed_judges_up_to_three_elements(monkeypatch, installed):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed and name == "sevenn" else None)
    assert configuration("Li-P-S").get("judge") == ({"potential": "7net-l3i5"} if installed else None)
    assert "judge" not in configuration("Li-P-S", minutes=2)
    assert "judge" not in configuration("Li-P-S-Cl") and "judge" not in configuration("Li-P-S", judge="none")
    assert configuration("Li-P-S-Cl", judge="chgnet-r2scan")["judge"] == {"potential": "chgnet-r2scan"}


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        ("Xx-Si", {}, "unknown element 'Xx'"),
        ("nothing.here", {}, "neither a file nor a chemical system"),
        ("Li-Si", {"guests": ["Q"]}, "'Q' is not an element"),
        ("mp-149", {}, "give its guest"),
    ],
)
def test_what_cannot_be_understood_is_said(question, options, words):
    with pytest.raises(ValueError, match=words):
        checked(question, **options)


def test_the_commented_yaml_is_the_same_configuration(tmp_path):
    content = configuration("Li-Si", guests=["Li"])
    path = tmp_path / "li-si.yaml"
    path.write_text(explained(content, path.name))
    assert yaml.safe_load(path.read_text()) == content
    assert load_config(path) == check_config(content, source="test")
    assert "# in a cell" in path.read_text()


def test_init_asks_and_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init"], input="Li-Si\nLi\n6\n3\n")
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "li-si.yaml")
    assert config.frameworks.guests == ("Li",) and config.policy.rounds == 3 and config.compositions.max_atoms == 6
