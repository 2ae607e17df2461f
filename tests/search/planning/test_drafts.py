"""What each generator is given: compositions, volumes, lattices, hosts and known types."""

from collections import Counter
from dataclasses import fields, replace

import pytest

from model.crystals.composition import CellFormula
from model.crystals.lattice import BRAVAIS
from model.generation.ion_substitution import substitutions
from model.generation.mutation import steps_apart
from model.generation.structure_types import StructureTypes
from model.generators.mode import WAYS
from model.generators.roles import Role
from model.library.phases import packaged_library
from model.thermodynamics.reference import packaged_reference
from search.planning.frameworks import frameworks_from_files
from search.planning.history import COMPARED
from search.planning.round_plan import plan_round
from search.planning.tasks import pending_rows
from search.running.driver import run_search
from search.storage.rows import HistoryRow, PendingRow, Row, names, rows_of, table_of
from tests.support.campaigns import (
    IN_LATTICES,
    V0,
    assert_same_tasks,
    campaign_of,
    pretended,
    walk,
    without_feedback,
)
from tests.support.configs import per_round
from tests.support.simulated import planned

# --- new crystals -------------------------------------------------------------------------------------------------


def test_new_crystals_hold_their_composition_and_are_all_guest(make_config):
    for task in planned(campaign_of(make_config()), 0):
        assert {one.role for one in task.candidates} == {Role.NEW}
        for one in task.candidates:
            crystal = one.template.crystal
            assert CellFormula.parse(crystal.composition.formula) == CellFormula.parse(one.origin.cell_formula)
            assert (one.template.guest == (one.generator != "ion_substitution")).all()
            assert len(one.template.guest) == len(crystal)


@pytest.mark.parametrize("given", [None, 13.5])
def test_volumes_are_n_times_v0(make_config, given):
    config = make_config(lattices={"volume_per_atom": given}, generators=IN_LATTICES, policy={**per_round(40, 16)})
    for task in planned(campaign_of(config), 0):
        for one in task.candidates:
            n = len(one.template.crystal)
            assert one.template.crystal.volume == pytest.approx(n * (given or V0), rel=1e-12)


def test_the_estimate_may_depend_on_the_composition(make_config):
    campaign = campaign_of(make_config(generators=IN_LATTICES), volume=lambda cell: 10.0 + cell.fraction("Li"))
    for task in planned(campaign, 0, []):
        for one in task.candidates:
            cell = CellFormula.parse(one.origin.cell_formula)
            assert one.template.crystal.volume == pytest.approx(cell.n_atoms * (10 + cell.fraction("Li")), rel=1e-12)


@pytest.mark.parametrize("given", [None, 13.5])
def test_the_volume_of_the_best_relaxed_crystal_is_taken_over(make_config, given):
    config = make_config(
        compositions={"cells": [{"Li": 2, "Si": 2}]},
        lattices={"volume_per_atom": given},
        generators=IN_LATTICES,
    )
    campaign = campaign_of(config)
    rows = pretended(planned(campaign, 0, []))
    relaxed = zip(rows[:3], (0.2, -0.1, 0.0), (11.0, 12.0, 13.0), strict=True)
    rows = [replace(row, e_d=e_d, volume_per_atom=volume) for row, e_d, volume in relaxed] + [
        replace(row, status="unconverged", e_d=-3.0, volume_per_atom=99.0) for row in rows[3:]
    ]
    assert campaign.history(rows).volumes == {"LiSi": 12.0}
    for task in planned(campaign, 1, rows):
        for one in task.candidates:
            assert one.template.crystal.volume == pytest.approx(4 * 12.0, rel=1e-12)


def test_volumes_are_shared_by_all_cells_of_a_formula(make_config):
    campaign = campaign_of(make_config(compositions={"formulas": ["LiSi"], "max_atoms": 6}, generators=IN_LATTICES))
    rows = pretended(planned(campaign, 0, []), volume_per_atom=12.0)[:1]
    volumes = {
        str(one.template.crystal.composition): one.template.crystal.volume / len(one.template.crystal)
        for task in planned(campaign, 1, rows)
        for one in task.candidates
    }
    assert len(volumes) == 3
    assert list(volumes.values()) == pytest.approx([12.0] * 3)


def test_fourteen_turns_visit_all_lattices(make_config):
    config = make_config(
        generators=["diffusion"], compositions={"cells": [{"Li": 1, "Si": 1}]}, policy={"candidates_per_round": 14}
    )
    (first, *rest) = planned(campaign_of(config), 0)
    systems = [one.origin.bravais_lattice for task in (first, *rest) for one in task.candidates]
    assert sorted(systems) == sorted(BRAVAIS)


def test_turns_go_on_over_rounds_results_and_tasks_under_way(make_config):
    policy = {"candidates_per_round": 2, "feedback": False}
    config = make_config(generators=["diffusion"], compositions={"cells": [{"Li": 1, "Si": 1}]}, policy=policy)
    rounds = walk(campaign_of(config), 7, ahead=1)
    systems = [one.origin.bravais_lattice for tasks in rounds for task in tasks for one in task.candidates]
    assert sorted(systems) == sorted(BRAVAIS)


def test_inpainted_crystals_take_no_lattices_turn(make_config):
    policy = {"candidates_per_round": 1, "feedback": False}
    config = make_config(generators=["diffusion"], compositions={"cells": [{"Li": 1, "Si": 1}]}, policy=policy)
    campaign, rows, systems = campaign_of(config), [], []
    for number in range(14):
        (task,) = planned(campaign, number, rows)
        systems.append(task.candidates[0].origin.bravais_lattice)
        (row,) = pretended([task])
        child = replace(row, role=Role.FROM_HOST, generator="inpainting", framework="f")
        rows += [row, *(replace(child, candidate=f"{row.candidate}{i}") for i in range(6))]
    assert sorted(systems) == sorted(BRAVAIS)


def test_compositions_begin_with_different_lattices(make_config):
    campaign = campaign_of(
        make_config(
            generators=["diffusion"],
            compositions={"system": "Li-Si", "max_atoms": 8},
            policy={"candidates_per_round": 28},
        )
    )
    first = [one.origin.bravais_lattice for task in planned(campaign, 0, []) for one in task.candidates]
    assert len(first) == len(campaign.cells) == 28
    assert len(set(first)) > 7


def test_lattices_that_pay_are_taken_more_often(make_config):
    policy = {**per_round(40, 16), "exploration_rate": 0, "prior_weight": 1}
    config = make_config(
        compositions={"cells": [{"Li": 4, "Si": 4}]}, lattices={"bravais": ["cP", "hP"]}, policy=policy
    )
    campaign = campaign_of(config)
    rows = [
        replace(row, e_d=0.0 if row.bravais_lattice == "hP" else 0.9) for row in pretended(planned(campaign, 0, []))
    ]
    systems = Counter(
        one.origin.bravais_lattice
        for task in planned(campaign, 1, rows)
        for one in task.candidates
        if not one.origin.parent
    )
    assert systems["hP"] > 3 * systems["cP"]


def test_only_lattices_that_were_asked_for(make_config):
    config = make_config(
        generators=["diffusion"], lattices={"bravais": ["cF", "hR"]}, policy={"candidates_per_round": 30}
    )
    tasks = planned(campaign_of(config), 0)
    assert {one.origin.bravais_lattice for task in tasks for one in task.candidates} == {"cF", "hR"}


# --- ion exchange -------------------------------------------------------------------------------------------------


def test_ion_exchange_takes_each_prototype_once_in_the_order_of_its_list(make_config):
    config = make_config(
        compositions={"cells": [{"Li": 4, "Si": 2}]},
        generators=["ion_substitution", "random"],
        policy={"candidates_per_round": 6},
    )
    tasks = [task for tasks in walk(campaign_of(config), 6, ahead=1) for task in tasks]
    names = [one.origin.prototype for task in tasks for one in task.candidates if one.generator == "ion_substitution"]
    known = [one.name for one in substitutions(CellFormula.parse("Li4Si2"), StructureTypes(packaged_library()))]
    assert 6 <= len(names) <= len(known)
    assert names == known[: len(names)]


def test_ion_exchange_ends_with_its_prototypes_and_begins_again_when_alone(make_config):
    cells = {"cells": [{"Li": 5, "Si": 2}]}
    known = len(substitutions(CellFormula.parse("Li5Si2"), StructureTypes(packaged_library())))
    policy = {"candidates_per_round": known + 2, "rounds_ahead": 0}
    both = campaign_of(make_config(compositions=cells, generators=["ion_substitution", "random"], policy=policy))
    rows = pretended(planned(both, 0, [])) + pretended(planned(both, 1, []), candidate="z")
    spent = [row for row in rows if row.generator == "ion_substitution"]
    assert len(spent) >= known
    later = planned(both, 2, [replace(row, candidate=str(i)) for i, row in enumerate(spent)])
    assert {one.generator for task in later for one in task.candidates} == {"random"}
    alone = campaign_of(make_config(compositions=cells, generators=["ion_substitution"], policy=policy))
    made = [one.template.crystal.identity for task in planned(alone, 0, []) for one in task.candidates]
    assert len(set(made)) > len(set(made[:known]))  # the last two are moved a little


def test_ion_exchange_alone_needs_a_prototype(make_config):
    config = make_config(compositions={"cells": [{"Li": 29, "Si": 1}]}, generators=["ion_substitution"])
    with pytest.raises(ValueError, match="no known structure type for Li29Si"):
        campaign_of(config)


# --- inpainting ---------------------------------------------------------------------------------------------------


def test_without_frameworks_nothing_is_inpainted(make_config):
    campaign = campaign_of(make_config())
    tasks = planned(campaign, 1, pretended(planned(campaign, 0, [])))
    assert {one.role for task in tasks for one in task.candidates} == {Role.NEW}


def test_inpainting_keeps_the_host_and_adds_the_guests_asked_for(cobaltate):
    config = without_feedback(cobaltate["config"])
    candidates = [
        one
        for task in planned(campaign_of(config), 1, cobaltate["rows"])
        for one in task.candidates
        if one.role == Role.FROM_HOST
    ]
    found = {one.framework: (one, row) for row in cobaltate["rows"] for one in row.frameworks or ()}
    assert len(candidates) == config.built_per_round == 4
    for one in candidates:
        framework, parent = found[one.origin.framework]
        host, crystal = framework.host.crystal, one.template.crystal
        assert crystal.select(~one.template.guest).identity == host.identity  # cell and atoms to the bit
        guests = Counter(crystal.select(one.template.guest).symbols)
        assert guests == framework.guests
        assert crystal.formula == "LiCoO2"
        assert one.origin.parent == parent.candidate
        assert one.origin.guests == ("Li",)
        assert one.origin.framework_space_group == framework.space_group
        assert CellFormula.parse(one.origin.cell_formula).n_atoms == len(crystal)


def test_a_pick_makes_as_many_samples_as_asked_for(cobaltate):
    tasks = planned(campaign_of(cobaltate["config"]), 1, cobaltate["rows"])
    frameworks = [one.origin.framework for task in tasks for one in task.candidates if one.role == Role.FROM_HOST]
    assert max(Counter(frameworks).values()) >= cobaltate["config"].policy.samples


def test_each_generator_has_its_own_settings(make_config, cobaltate):
    config = make_config(
        compositions={"formulas": ["LiCoO2"], "max_atoms": 4},
        frameworks={"guests": ["Li"]},
        sampling={
            "diffusion": {"kind": "heun", "steps": 5},
            "random": {"separation": 0.9},
            "inpainting": {"kind": "predictor-corrector", "steps": 6},
        },
        policy={"exploration_rate": 1.0},
    )
    rows = [replace(row, e_d=0.0) for row in cobaltate["rows"] if row.status == "relaxed"]
    tasks = planned(campaign_of(config), 1, rows)
    samplers = {one.generator: one.settings for task in tasks for one in task.candidates}
    assert samplers == {name: config.sampling.get(name) for name in config.generators}
    assert samplers["diffusion"].steps == 5 and samplers["random"].separation == 0.9
    assert samplers["ion_substitution"] is samplers["mutation"] is None


@pytest.mark.parametrize(
    ("group", "methods"),
    [(166, {"inpainting", "symmetric", "subgroup"}), (2, {"inpainting", "symmetric"}), (1, {"inpainting"})],
)
def test_a_host_is_filled_by_what_its_symmetry_allows(make_config, host_file, monkeypatch, tmp_path, group, methods):
    (record,) = frameworks_from_files([host_file])
    hosts = [replace(record, space_group_number=group)]
    for module in ("planning.campaign", "running.driver"):
        monkeypatch.setattr(f"search.{module}.frameworks_from_files", lambda _: hosts)
    host_methods = {
        "compositions": {"formulas": ["LiCoO2"], "max_atoms": 4},
        "frameworks": {"files": [str(host_file)], "guests": ["Li"]},
        "policy": {**per_round(12, 16), "samples": 1, "feedback": False},
    }
    config = make_config(generators=["inpainting", "symmetric", "subgroup"], **host_methods)
    tasks = planned(campaign_of(config), 0)
    assert {one.generator for task in tasks for one in task.candidates} == methods
    for task in tasks:
        assert all(mask.tolist() == [False, False, False, True] for mask in task.guests)
        assert len(task.only(1).guests) == 1
    if "subgroup" not in methods:
        alone = make_config(generators=["subgroup"], **host_methods)
        with pytest.raises(
            ValueError, match=r"subgroup need hosts with symmetry, but .* have only R-3m; add inpainting"
        ):
            campaign_of(alone)
        with pytest.raises(ValueError, match="subgroup need hosts with symmetry"):
            run_search(alone, tmp_path / "run", packaged_reference())
        assert not (tmp_path / "run").exists()  # nothing was begun


def test_new_crystals_have_no_named_guests(make_config):
    (task, *_) = planned(campaign_of(make_config(generators=["diffusion"])), 0)
    assert task.guests == [None] * len(task.candidates)


def test_an_origin_fits_the_results(cobaltate):
    for task in planned(campaign_of(cobaltate["config"]), 1, cobaltate["rows"]):
        for one in task.candidates:
            assert {one.name for one in fields(one.origin)} <= set(names(Row))


# --- mutation -----------------------------------------------------------------------------------------------------


def with_one_low(campaign):
    """Rows of the first round, of which the fourth alone is low."""
    rows = pretended(planned(campaign, 0, []))
    return [replace(row, e_d=0.01 if number == 3 else 0.4) for number, row in enumerate(rows)]


def test_low_crystals_are_changed_into_the_cells_beside_theirs(make_config):
    policy = {"candidates_per_round": 40, "exploration_rate": 0.5, "quantile": 0.01}
    campaign = campaign_of(make_config(generators=["random", "mutation"], policy=policy))
    rows = with_one_low(campaign)
    candidates = [one for task in planned(campaign, 1, rows) for one in task.candidates if one.generator == "mutation"]
    parent, own = rows[3].final.crystal, CellFormula.parse(rows[3].cell_formula)
    assert len({one.origin.cell_formula for one in candidates}) > 1
    for one in candidates:
        assert one.origin.parent == rows[3].candidate
        cell = CellFormula.parse(one.origin.cell_formula)
        assert steps_apart(own, cell) <= 1
        assert one.template.crystal.composition.formula == cell.pymatgen.formula
        assert one.template.crystal.volume == pytest.approx(
            parent.volume * cell.n_atoms / own.n_atoms
        )  # V0 is constant


def test_low_crystals_are_displaced_in_their_own_cell_and_a_doubled_one(make_config):
    policy = {"candidates_per_round": 40, "exploration_rate": 0.5, "quantile": 0.01}
    cells = [{"Li": 2, "Si": 1}, {"Li": 4, "Si": 2}, {"Li": 6, "Si": 3}]
    config = make_config(generators=["random", "mode"], policy=policy, compositions={"cells": cells})
    campaign = campaign_of(config)
    assert campaign.reached_cells("mode", "Li2Si") == ["Li2Si", "Li4Si2"]
    rows = pretended(planned(campaign, 0, []))
    low = next(number for number, row in enumerate(rows) if row.cell_formula == "Li2Si")
    rows = [replace(row, e_d=0.01 if number == low else 0.4) for number, row in enumerate(rows)]
    moved = [one for task in planned(campaign, 1, rows) for one in task.candidates if one.generator == "mode"]
    assert moved
    for one in moved:
        assert one.origin.parent == rows[low].candidate
        times = CellFormula.parse(one.origin.cell_formula).n_atoms // 3
        assert one.template.crystal.volume == pytest.approx(times * rows[low].final.crystal.volume)
        assert len(one.template.crystal) == 3 * times
    ways = [(one.origin.cell_formula, one.template.seed % WAYS) for one in moved]
    assert len(set(ways)) == len(ways)


def test_no_change_of_a_crystal_is_made_twice(make_config):
    policy = {"candidates_per_round": 60, "new_share": 0.333333, "exploration_rate": 0.2, "quantile": 0.01}
    campaign = campaign_of(make_config(generators=["random", "mutation"], policy=policy))
    rows = with_one_low(campaign)
    made = Counter()
    for number in range(1, 5):
        tasks = planned(campaign, number, rows)
        made.update(
            one.template.crystal.identity for task in tasks for one in task.candidates if one.generator == "mutation"
        )
        rows += pretended(tasks, e_d=0.4)
    assert made
    assert set(made.values()) == {1}


def test_mutations_of_a_crystal_count_for_it_and_give_frameworks_as_new_crystals_do(make_config):
    config = make_config(
        generators=["random", "mutation"], policy={"candidates_per_round": 32, "exploration_rate": 0.5}
    )
    campaign = campaign_of(config)
    rows = pretended(planned(campaign, 0, []), e_d=0.0)
    tasks = planned(campaign, 1, rows)
    changed = [task for task in tasks if task.candidates[0].generator == "mutation"]
    assert changed
    assert all(one.role == Role.NEW for task in changed for one in task.candidates if one.generator == "mutation")
    assert_same_tasks(tasks, planned(campaign, 1, rows))
    rows += pretended(tasks, e_d=0.0)
    then, told = planned(campaign, 2, rows), rows_of(table_of(rows, Row).select(names(HistoryRow)), HistoryRow)
    assert_same_tasks(then, planned(campaign, 2, told))  # the planner is told no more
    waiting = rows_of(table_of(pending_rows(then, with_settings=False), PendingRow), PendingRow)
    later = plan_round(campaign, 3, campaign.history(told), waiting)
    assert_same_tasks(later, planned(campaign, 3, rows, then))
    assert any(one.generator == "mutation" for task in later for one in task.candidates)


def test_without_feedback_any_crystal_may_be_changed(make_config):
    config = without_feedback(make_config(generators=["random", "mutation"], policy={"candidates_per_round": 16}))
    campaign = campaign_of(config)
    rows = pretended(planned(campaign, 0, []), e_d=COMPARED)
    assert any(one.generator == "mutation" for task in planned(campaign, 1, rows) for one in task.candidates)
