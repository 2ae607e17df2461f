"""Hosts from files, folders, tables and the library, and what is said of those that cannot be had."""

from pathlib import Path

import pytest

from search.electrodes.config import GivingUp, Hosts, ScreenConfig, check_screen, load_screen
from search.electrodes.driver import plan_tasks
from search.electrodes.filling import FillSettings
from search.electrodes.hosts import find_hosts
from search.electrodes.rows import explained

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path, licoo2):
    licoo2.to_pymatgen().to(filename=str(tmp_path / "LiCoO2.cif"))
    licoo2.select(licoo2.numbers != 3).to_pymatgen().to(filename=str(tmp_path / "CoO2.cif"))
    (tmp_path / "broken.cif").write_text("data_x\n_cell_length_a 3\nloop_\n")
    (tmp_path / "notes.txt").write_text("no crystal")
    return tmp_path


def test_a_folder_gives_its_crystals_cheap_ones_first_and_says_what_is_broken(folder):
    broken, empty, full = find_hosts(Hosts(files=(str(folder),)))
    assert broken.name == "broken" and broken.crystal is None and "CIF" in broken.problem
    assert (empty.name, full.name) == ("CoO2", "LiCoO2")


def test_an_unreadable_host_is_one_task_and_the_others_one_per_ion(folder):
    config = check_screen({"hosts": {"files": [str(folder)]}, "guests": ["Li", "Mg"]}, source="test")
    tasks = plan_tasks(config, find_hosts(config.hosts))
    assert [(task.host, task.guest) for task in tasks] == [
        ("broken", ""), ("CoO2", "Li"), ("CoO2", "Mg"), ("LiCoO2", "Li"), ("LiCoO2", "Mg"),
    ]  # fmt: skip
    assert len({task.identity for task in tasks}) == 5


def test_tasks_keep_their_names_when_hosts_and_ions_are_added(folder):
    some = check_screen({"hosts": {"files": [str(folder / "CoO2.cif")]}, "guests": ["Li"]}, source="test")
    more = check_screen({"hosts": {"files": [str(folder)]}, "guests": ["Mg", "Li"]}, source="test")
    (task,) = plan_tasks(some, find_hosts(some.hosts))
    assert task.identity in {one.identity for one in plan_tasks(more, find_hosts(more.hosts))}


def test_the_library_gives_hosts_by_identifier_and_by_elements():
    known = find_hosts(Hosts(systems=("Ti-S",), max_atoms=12))
    assert known and all(set(one.crystal.symbols) == {"Ti", "S"} and len(one.crystal) <= 12 for one in known)
    wild = find_hosts(Hosts(systems=("*-S",), max_atoms=6))
    assert {one.name for one in find_hosts(Hosts(systems=("Ti-S",), max_atoms=6))} < {one.name for one in wild}
    (same,) = find_hosts(Hosts(files=(known[0].name,)))
    assert same.crystal.identity == known[0].crystal.identity


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (Hosts(), "no host is given"),
        (Hosts(files=("nowhere.cif",)), "neither a file nor a folder"),
        (Hosts(files=("mp-99999999",)), "not in the library"),
        (Hosts(systems=("He-Ne",)), "has none of exactly these elements"),
        (Hosts(systems=("*-*-O",)), "one element may be"),
        (Hosts(systems=("Xx-O",)), "Xx"),
    ],
)
def test_what_cannot_be_had_is_said_before_any_work(hosts, message):
    with pytest.raises(ValueError, match=message):
        find_hosts(hosts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "guests: Field required"),
        ({"guests": ["Xx"]}, "'Xx' is not an element"),
        ({"guests": ["Li"], "contnts": 3}, "unknown field"),
        ({"guests": ["Li"], "potential": "m3gnet"}, "m3gnet"),
    ],
)
def test_bad_configurations_name_the_field(content, message):
    with pytest.raises(ValueError, match=message):
        check_screen(content, source="test")


def test_the_example_is_valid():
    config = load_screen(ROOT / "configs" / "screen.yaml")
    assert config.guests == ("Mg", "Zn") and config.hosts.systems


def test_every_field_is_explained():
    text = (ROOT / "docs" / "electrodes.md").read_text(encoding="utf-8")
    groups = {"hosts": Hosts, "filling": FillSettings, "giving_up": GivingUp}
    names = [f"{group}.{name}" for group, settings in groups.items() for name in settings.model_fields]
    names += [name for name in ScreenConfig.model_fields if name not in groups]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_column_is_explained():
    assert explained() in (ROOT / "docs" / "electrodes.md").read_text(encoding="utf-8")


def test_a_configuration_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("- Li")
    with pytest.raises(ValueError, match="mapping of fields"):
        load_screen(tmp_path / "a.yaml")
