import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Lattice, Structure

from search.config import SearchConfig
from search.config_file import check_config, load_config
from search.planning.campaign import Campaign, digest
from search.planning.prepare import RunMetadata, load_reference, same_search
from search.planning.round_plan import plan_round
from search.storage.results import write_json

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SEARCHES = sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "screen.yaml"})
BASE = {"name": "test", "compositions": {"system": "Li-Si", "max_atoms": 6}}


def with_section(**sections):
    return {**copy.deepcopy(BASE), **sections}


def compositions(**fields):
    return with_section(compositions={**BASE["compositions"], **fields})


def problem_of(content):
    with pytest.raises(ValueError, match=r"^search\.yaml:\n  ") as caught:
        check_config(content, source="search.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.name)
def test_every_shipped_search_is_valid(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.compositions.expand()


def test_there_is_a_shipped_search():
    assert SEARCHES


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.name)
def test_a_configuration_comes_back_from_yaml_as_it_was(path):
    config = load_config(path)
    again = SearchConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config


@pytest.mark.parametrize(
    ("content", "where", "known"),
    [
        (with_section(guest="Li"), "guest", "frameworks"),
        (compositions(elements=["Li"]), "compositions.elements", "system, composition_order"),
        (with_section(relaxation={"f_max": 0.1}), "relaxation.f_max", "fmax"),
        (with_section(screening={"min_dist": 1.0}), "screening.min_dist", "min_distance"),
        (with_section(lattices={"ranges": {"ratios": [1, 2]}}), "lattices.ranges.ratios", "ratio"),
        (
            with_section(sampling={"diffusion": {"kind": "heun", "step": 9}}),
            "sampling.diffusion.step",
            "steps, sigma_min",
        ),
        (
            with_section(sampling={"inpainting": {"kind": "predictor-corrector", "r": 3}}),
            "sampling.inpainting.r",
            "resamples",
        ),
        (with_section(policy={"round": 3}), "policy.round", "rounds"),
        (with_section(frameworks={"guest": ["Li"]}), "frameworks.guest", "guests"),
        (with_section(resources={"cores": 3}), "resources.cores", "relax_actors"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unknown_field_is_named_beside_those_there_are(content, where, known):
    problem = problem_of(content)
    assert f"  {where}: unknown field" in problem
    assert known in problem.split("valid fields are")[1]
    assert "(given: " in problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # compositions
        (compositions(system="Li-Xx"), ["compositions", "'Xx'", "symbols such as 'Li'"]),
        (compositions(system="Li-Li"), ["compositions", "listed twice", "'Li-Li'"]),
        (compositions(system=["Li", "Si"]), ["compositions.system", "must be text", "['Li', 'Si']"]),
        (compositions(system=False), ["compositions.system", "quotes", "False"]),
        (compositions(min_atoms=9), ["min_atoms <= max_atoms", "9 and 6"]),
        (compositions(max_atoms=0), ["compositions.max_atoms", "greater than or equal to 1", "given: 0"]),
        (compositions(max_atoms=501), ["compositions.max_atoms", "less than or equal to 500", "given: 501"]),
        (
            compositions(max_atoms=2, composition_order=[["Li", "Si"]]),
            ["no composition", "2 to 2 atoms", "raise max_atoms"],
        ),
        (compositions(composition_order=[["Li", "P"]]), ["['P']", "system Li-Si"]),
        (compositions(composition_order=["Li", "Si"]), ["compositions.composition_order.0", "must be a list", "'Li'"]),
        (compositions(composition_order=[["Li"]]), ["`composition_order`", "two or more elements", "('Li',)"]),
        (compositions(fractions={"Li": [0.9, 0.5]}), ["fraction of Li", "low <= high", "0.9 and 0.5"]),
        (compositions(fractions={"P": [0.1, 0.5]}), ["['P']", "system Li-Si"]),
        (compositions(fractions=[1]), ["compositions.fractions", "group of fields", "[1]"]),
        (compositions(formulas=["LiSi"]), ["exactly one", "found system and formulas"]),
        (compositions(formulas=["LiSi"], cells=[{"Li": 1}]), ["found system and formulas and cells"]),
        (with_section(compositions={"max_atoms": 6}), ["exactly one", "found none"]),
        (with_section(compositions={}), ["exactly one", "found none"]),
        (with_section(compositions="Li-Si"), ["compositions", "group of fields", "'Li-Si'"]),
        (
            with_section(compositions={"formulas": ["LiSi"], "composition_order": [["Li", "Si"]]}),
            ["composition_order", "give a system"],
        ),
        (with_section(compositions={"formulas": ["Li15Si4"], "max_atoms": 12}), ["Li15Si4", "max_atoms=19"]),
        (with_section(compositions={"formulas": ["Li1.5Si"]}), ["'Li1.5Si'", "whole numbers"]),
        (with_section(compositions={"cells": [{"Xx": 1}]}), ["'Xx'", "symbols such as 'Li'"]),
        (with_section(compositions={"cells": [{"Li": 1.5}]}), ["compositions.cells.0.Li", "integer", "1.5"]),
        (with_section(compositions={"cells": [{"Li": -1}]}), ["count of Li", "at least 1", "-1"]),
        (with_section(compositions={"cells": ["Li2"]}), ["compositions.cells.0", "group of fields", "'Li2'"]),
        # guests
        (with_section(frameworks={"guests": ["Na"]}), ["frameworks.guests", "Na", "choose from Li, Si"]),
        (with_section(frameworks={"guests": ["Xx"]}), ["frameworks.guests", "'Xx' is not an element", "such as Li"]),
        (with_section(frameworks={"guests": ["Li", "Si"]}), ["frameworks.guests", "Li, Si", "leave out"]),
        (with_section(frameworks={"guests": "Li"}), ["frameworks.guests", "must be a list", "'Li'"]),
        (with_section(frameworks={"guests": []}), ["frameworks.guests", "omit guests", "[]"]),
        (with_section(frameworks={"tolerances": []}), ["frameworks.tolerances", "symprec", "[]"]),
        (with_section(frameworks={"tolerances": [[0.1]]}), ["frameworks.tolerances.0", "too short", "[0.1]"]),
        (with_section(frameworks={"tolerances": [[-0.1, 5]]}), ["frameworks.tolerances", "symprec above 0", "-0.1"]),
        # lattices
        (with_section(lattices={"bravais": ["cP", "cX"]}), ["lattices.bravais", "cX", "choose from cP, cI, cF"]),
        (with_section(lattices={"bravais": []}), ["lattices.bravais", "none given", "choose from"]),
        (with_section(lattices={"bravais": "cP"}), ["lattices.bravais", "must be a list", "'cP'"]),
        (with_section(lattices={"volume_per_atom": -1}), ["lattices.volume_per_atom", "greater than 0", "-1"]),
        (with_section(lattices={"ranges": {"ratio": [1.2, 0.8]}}), ["lattices.ranges", "ratio", "(1.2, 0.8)"]),
        # reference
        (with_section(reference={"kind": "file"}), ["reference", "kind: file needs", "path and potential must be"]),
        (with_section(reference={"kind": "file", "path": "x"}), ["reference", "; potential must be given"]),
        (with_section(reference={"path": "x.json"}), ["reference", "no effect with kind: auto", "change kind"]),
        (with_section(reference={"kind": "web"}), ["reference.kind", "'table', 'file' or 'mp'", "'web'"]),
        # samplers
        (
            with_section(sampling={"diffusion": {"kind": "euler"}}),
            ["sampling.diffusion", "predictor-corrector, heun, ancestral", "'euler'"],
        ),
        (
            with_section(sampling={"diffusion": {"steps": 9}}),
            ["sampling.diffusion", "kind must be given", "predictor-corrector, heun"],
        ),
        (with_section(sampling={"diffusion": "heun"}), ["sampling.diffusion", "group of fields", "'heun'"]),
        (with_section(sampling={"diffusion": {"kind": "heun", "steps": 0}}), ["sampling.diffusion.steps", "given: 0"]),
        (
            with_section(sampling={"inpainting": {"kind": "predictor-corrector", "sigma_min": 11}}),
            ["sampling.inpainting: sigma_min (11.0 Å) must be below sigma_max (10.0 Å)"],
        ),
        # relaxation
        (with_section(relaxation={"optimizer": "bfgs"}), ["relaxation.optimizer", "'fire' or 'lbfgs'", "'bfgs'"]),
        (
            with_section(relaxation={"cell": "all"}),
            ["relaxation.cell", "'full', 'hydrostatic', 'fixed_volume' or 'fixed'", "'all'"],
        ),
        (with_section(relaxation={"fmax": 0}), ["relaxation.fmax", "greater than 0", "0"]),
        (with_section(relaxation={"fmax": "tight"}), ["relaxation.fmax", "number", "'tight'"]),
        (with_section(relaxation={"fmax": float("nan")}), ["relaxation.fmax", "finite", "nan"]),
        (
            with_section(relaxation={"pressure": 5.0}),
            ["  relaxation.pressure", "given: 5.0", "hostguide relax --pressure"],
        ),
        (
            with_section(tuning={"relaxation": {"pressure": [0, 5]}}),
            ["  tuning.relaxation.pressure", "given: (0.0, 5.0)", "hostguide relax --pressure"],
        ),
        # the rest
        (with_section(name="my search"), ["name", "letters, digits", "'my search'"]),
        (with_section(name="../x"), ["name", "letters, digits", "'../x'"]),
        (with_section(seed=-1), ["seed", "greater than or equal to 0", "-1"]),
        (with_section(policy={"rounds": 0}), ["policy.rounds", "greater than or equal to 1", "given: 0"]),
        (with_section(policy={"rounds": "many"}), ["policy.rounds", "integer", "'many'"]),
        (with_section(policy=None), ["policy", "group of fields", "None"]),
        (
            with_section(models={"potential": "mace"}),
            ["models.potential: unknown", "choose from chgnet-0.3.0, chgnet-r2scan", "'mace'"],
        ),
        (with_section(models={"device": "gpu"}), ["models.device", "'cuda'", "'gpu'"]),
        (with_section(resources={"relax_actors": 0}), ["resources.relax_actors", "given: 0"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_problem_names_the_field_the_value_and_the_remedy(content, words):
    problem = problem_of(content)
    for word in words:
        assert word in problem


@pytest.mark.parametrize("field", ["name", "compositions"])
def test_a_missing_field_is_named(field):
    content = copy.deepcopy(BASE)
    del content[field]
    assert f"  {field}: must be given" in problem_of(content)


def test_all_problems_are_told_at_once():
    problem = problem_of(with_section(seed=-1, policy={"rounds": 0, "round": 3}))
    assert [line.split(":")[0].strip() for line in problem.splitlines()[1:]] == [
        "seed",
        "policy.rounds",
        "policy.round",
    ]


def test_nobody_has_to_read_python_in_a_problem():
    problems = [
        problem_of(content)
        for content in (
            compositions(composition_order=[3]),
            with_section(policy=3),
            with_section(relaxation=3),
            with_section(seed=""),
        )
    ]
    for word in ("tuple", "instance", "dataclass", "Input", "Settings"):
        assert not any(word in problem for problem in problems)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.yaml does not exist; configs/ in the repository contains examples"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- name: x\n", "must contain a mapping of fields, found list"),
        ("", "must contain a mapping of fields, found NoneType"),
        ("just text", "must contain a mapping of fields, found str"),
        ("name: [x\n", r"is not valid YAML: .*line 2"),
    ],
)
def test_a_file_without_fields_is_refused(tmp_path, text, words):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)search\.yaml {words}"):
        load_config(path)


def test_the_file_is_named_above_its_problems(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(with_section(seed=-1)))
    with pytest.raises(ValueError, match=r"search\.yaml:\n  seed: "):
        load_config(path)


def test_exact_cells_need_no_budget_and_count_once():
    config = check_config(
        with_section(compositions={"cells": [{"Li": 20, "Si": 4}, {"Si": 4, "Li": 20}]}), source="search.yaml"
    )
    assert [str(cell) for cell in config.compositions.expand()] == ["Li20Si4"]
    assert config.compositions.elements == ("Li", "Si")


def test_more_takes_chains():
    config = check_config(
        with_section(compositions={"system": "Li-P-S", "max_atoms": 6, "composition_order": [["Li", "S", "P"]]}),
        source="search.yaml",
    )
    assert [str(cell) for cell in config.compositions.expand()] == ["Li3PS2"]


def test_every_given_value_arrives():
    content = with_section(
        lattices={"bravais": ["cF", "hR"], "volume_per_atom": 14.5},
        sampling={"diffusion": {"kind": "heun", "steps": 7}},
        relaxation={"optimizer": "lbfgs", "fmax": 0.02},
        screening={"min_distance": 1.3},
        policy={"rounds_ahead": 0, "feedback": False},
    )
    config = check_config(content, source="search.yaml")
    assert config.lattices.bravais == ("cF", "hR")
    assert config.lattices.volume_per_atom == 14.5
    assert (config.sampling["diffusion"].kind, config.sampling["diffusion"].steps) == ("heun", 7)
    assert config.sampling["inpainting"].kind == "ancestral"
    assert (config.relaxation.optimizer, config.relaxation.fmax) == ("lbfgs", 0.02)
    assert config.screening.min_distance == 1.3
    assert (config.policy.rounds_ahead, config.policy.feedback) == (0, False)


def test_physics_is_all_but_resources_and_the_length_of_the_search(make_config):
    physics = json.loads(make_config().result_defining())
    assert "resources" not in physics
    assert "rounds" not in physics["policy"]
    expected = set(SearchConfig.model_fields) - {"resources", "verification"}
    assert set(physics) == expected
    assert set(physics["policy"]) == set(make_config().policy.model_dump()) - {"rounds", "stop"}


def test_the_digest_ignores_the_order_of_keys_the_resources_and_the_rounds(make_config):
    plain = make_config(policy={"samples": 2, "batch": 4})
    turned = check_config(
        dict(
            reversed(
                {
                    **BASE,
                    "compositions": {"max_atoms": 4, "system": "Li-Si"},
                    "policy": {"batch": 4, "samples": 2},
                    "frameworks": {"known": 0},
                }.items()
            )
        ),
        source="search.yaml",
    )
    assert digest(turned) == digest(plain)
    elsewhere = {"address": "auto", "relax_actors": 3, "generate_actors": 2, "task_seconds": 5}
    assert digest(make_config(policy={"samples": 2, "batch": 4}, resources=elsewhere)) == digest(plain)
    assert digest(make_config(policy={"samples": 2, "batch": 4, "rounds": 99})) == digest(plain)
    assert len(digest(plain)) == 8


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"name": "other"},
        {"compositions": {"system": "Li-Si", "max_atoms": 5}},
        {"relaxation": {"fmax": 0.02}},
        {"screening": {"min_distance": 1.1}},
        {"sampling": {"diffusion": {"kind": "heun"}}},
        {"policy": {"samples": 2}},
        {"models": {"potential": "chgnet-r2scan"}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_the_digest_changes_with_whatever_decides_results(make_config, sections):
    assert digest(make_config(**sections)) != digest(make_config())


def test_a_folder_goes_on_with_the_same_search_only(make_config, tmp_path):
    config = make_config()
    reference = load_reference(config)
    same_search(tmp_path, config, reference)  # nothing there yet
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    write_json(tmp_path / "run.json", asdict(RunMetadata.of(config, reference)))
    same_search(tmp_path, make_config(policy={"rounds": 99}, resources={"relax_actors": 1}), reference)
    with pytest.raises(ValueError, match=r"seed: was 0, is 1.*--run") as caught:
        same_search(tmp_path, make_config(seed=1), reference)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(ValueError, match=r"relaxation\.fmax: was 0\.05, is 0\.02"):
        same_search(tmp_path, make_config(relaxation={"fmax": 0.02}), reference)
    with pytest.raises(ValueError, match=r"reference: was 'Materials Project.*is 'mine"):
        same_search(tmp_path, config, replace(reference, name="mine"))


# --- hosts in files -----------------------------------------------------------------------------------------------


def with_host(folder, edge):
    """A configuration in ``folder`` that names a host beside it."""
    lattice = Lattice.cubic(edge)
    Structure(lattice, ["Ti", "S", "S"], [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5]]).to(str(folder / "host.cif"))
    content = {
        "name": "hosts",
        "compositions": {"cells": [{"Li": 1, "Ti": 1, "S": 2}]},
        "frameworks": {"files": ["host.cif"], "guests": ["Li"]},
        "generators": ["inpainting"],
    }
    (folder / "hosts.yaml").write_text(yaml.safe_dump(content))
    return load_config(folder / "hosts.yaml")


def test_a_host_may_be_a_known_phase_unless_the_search_is_blind(tmp_path):
    content = {
        "name": "hosts",
        "compositions": {"cells": [{"Li": 1, "Ti": 1, "S": 2}]},
        "frameworks": {"files": ["mp-2156"], "guests": ["Li"]},
        "generators": ["inpainting"],
    }
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump(content))
    config = load_config(path)
    assert config.frameworks.files == ("mp-2156",) and not config.blind
    campaign = Campaign(config, lambda cell: 16.0)
    assert [found.host.crystal.formula for found in campaign.files] == ["TiS2"]
    path.write_text(yaml.safe_dump({**content, "blind": True}))
    with pytest.raises(ValueError, match=r"a blind search uses no known phase .* names mp-2156; remove it"):
        load_config(path)


def test_hosts_are_looked_for_beside_the_configuration(tmp_path):
    config = with_host(tmp_path, 4.0)
    assert config.frameworks.files == (str(tmp_path / "host.cif"),)
    campaign = Campaign(config, lambda cell: 16.0)
    (task,) = plan_round(campaign, 0, campaign.history())[:1]
    assert {one.origin.cell_formula for one in task.candidates} == {"LiS2Ti"}
    assert {one.origin.parent for one in task.candidates} == {None}


def test_what_a_host_holds_decides_results_and_not_where_it_lies(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    same, moved, other = (with_host(folder, edge) for folder, edge in zip(folders, (4.0, 4.0, 4.1), strict=True))
    assert digest(same) == digest(moved) != digest(other)


def test_a_missing_host_is_an_error_before_any_work(tmp_path):
    config = with_host(tmp_path, 4.0)
    (tmp_path / "host.cif").unlink()
    with pytest.raises(ValueError, match=r"host\.cif does not exist"):
        Campaign(config, lambda cell: 16.0)


def test_generators_that_need_frameworks_need_something_to_begin_with(make_config):
    with pytest.raises(ValueError, match=r"inpainting need crystals to start from; add one of diffusion"):
        make_config(generators=["inpainting"])
