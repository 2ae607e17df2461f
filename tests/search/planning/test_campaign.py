"""What a round plans: the same from the same, when, in which batches, and what is given up."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from model.generators.roles import Role
from model.stages import Rejected
from search.planning.frameworks import frameworks_from_files
from search.running.pipeline import guests_to_remove
from search.storage.results import ResultStore
from tests.support.campaigns import (
    assert_same_tasks,
    campaign_of,
    pretended,
    seeds,
    walk,
)
from tests.support.configs import per_round
from tests.support.simulated import planned

# --- determinism --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_the_same_configuration_and_results_give_the_same_plan(make_config, ahead):
    policy = {**per_round(7, 16), "batch": 3, "rounds_ahead": ahead}
    some = walk(campaign_of(make_config(policy=policy)), 5, ahead=ahead)
    others = walk(campaign_of(make_config(policy=policy)), 5, ahead=ahead)
    for one, other in zip(some, others, strict=True):
        assert_same_tasks(one, other)


def test_the_order_in_which_results_arrive_decides_nothing(cobaltate):
    found_again = [
        replace(
            row,
            candidate=f"1{row.candidate}",
            frameworks=[replace(found, framework=f"1{found.framework}") for found in row.frameworks or ()],
        )
        for row in cobaltate["rows"]
    ]
    campaign, rows = campaign_of(cobaltate["config"]), cobaltate["rows"] + found_again
    straight = planned(campaign, 1, rows)
    assert any(one.role == Role.FROM_HOST for task in straight for one in task.candidates)
    for order in (range(len(rows))[::-1], np.random.default_rng(0).permutation(len(rows))):
        assert_same_tasks(straight, planned(campaign, 1, [rows[i] for i in order]))


def test_results_from_disk_give_the_same_plan_as_those_in_memory(cobaltate, tmp_path):
    campaign, store = campaign_of(cobaltate["config"]), ResultStore(tmp_path)
    store.append(cobaltate["task"].identity, cobaltate["rows"])
    assert_same_tasks(planned(campaign, 1, cobaltate["rows"]), planned(campaign, 1, store.rows(sorted(store.tasks()))))


def test_planning_leaves_its_input_alone_and_can_be_repeated(cobaltate):
    campaign, rows, task = campaign_of(cobaltate["config"]), cobaltate["rows"], cobaltate["task"]
    rows_before, task_before = deepcopy(rows), deepcopy(task)
    first = planned(campaign, 1, rows, [task])
    assert_same_tasks(first, planned(campaign, 1, rows, [task]))
    np.testing.assert_equal(rows, rows_before)  # every column of every row, with what is in its lists
    assert_same_tasks([task], [task_before])


def test_resources_and_rounds_change_nothing(make_config):
    plain = planned(campaign_of(make_config()), 3)
    elsewhere = make_config(resources={"relax_actors": 7, "address": "auto"}, policy={"rounds": 99})
    assert_same_tasks(plain, planned(campaign_of(elsewhere), 3))


def test_another_seed_gives_other_identities_lattices_and_seeds(make_config):
    triclinic = {"bravais": ["aP"]}  # cubic cells of one volume are all alike
    one = planned(campaign_of(make_config(generators=["diffusion"], seed=0, lattices=triclinic)), 0)
    other = planned(campaign_of(make_config(generators=["diffusion"], seed=1, lattices=triclinic)), 0)
    assert not {task.identity for task in one} & {task.identity for task in other}
    assert not set(seeds(one)) & set(seeds(other))
    lattices = [
        {one.template.crystal.lattice.tobytes() for task in tasks for one in task.candidates} for tasks in (one, other)
    ]
    assert not lattices[0] & lattices[1]


def test_identities_and_seeds_never_repeat(make_config):
    rounds = walk(
        campaign_of(make_config(policy={"candidates_per_round": 13, "new_share": 0.692308, "batch": 2})), 6, ahead=1
    )
    tasks = [task for some in rounds for task in some]
    assert len({task.identity for task in tasks}) == len(tasks)
    assert len(set(seeds(tasks))) == len(seeds(tasks)) == 6 * 9 + 4 * 4
    assert all(0 <= seed < 2**62 for seed in seeds(tasks))  # fits the results' int64


def test_an_identity_is_a_sortable_file_name(make_config):
    campaign = campaign_of(make_config(policy={"batch": 4}))
    tasks = [task for number in (2, 10) for task in planned(campaign, number, [])]
    identities = [task.identity for task in tasks]
    assert identities == sorted(identities)
    assert identities[0] == f"00002-000-{campaign.digest}"


# --- rounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "known"), [(0, [0, 1, 2, 3, 4]), (1, [0, 0, 1, 2, 3]), (2, [0, 0, 0, 1, 2]), (9, [0] * 5)]
)
def test_a_round_knows_of_those_that_lie_further_back_than_the_rounds_ahead(make_config, ahead, known):
    campaign = campaign_of(make_config(policy={"rounds_ahead": ahead}))
    assert [list(campaign.known_rounds(number)) for number in range(5)] == [list(range(count)) for count in known]


def test_pending_tasks_count_as_spent(make_config):
    # Of Li-Si with up to 4 atoms there are 6 cells; three are under way, the other three are next.
    campaign = campaign_of(make_config(policy={**per_round(3, 16)}))
    first = planned(campaign, 0, [])
    second = planned(campaign, 1, [], pending=first)
    cells = [{one.origin.cell_formula for task in tasks for one in task.candidates} for tasks in (first, second)]
    assert len(cells[0]) == len(cells[1]) == 3
    assert cells[0] | cells[1] == set(campaign.cells)


def test_one_round_tries_every_composition(make_config):
    campaign = campaign_of(make_config(policy={**per_round(6, 16)}))
    tasks = planned(campaign, 0, [])
    assert Counter(one.origin.cell_formula for task in tasks for one in task.candidates) == Counter(
        list(campaign.cells)
    )


def test_rounds_are_whole_where_nothing_is_ever_built_on_others(make_config):
    policy = {"rounds": 3, "candidates_per_round": 10, "rounds_ahead": 1}
    alone = make_config(generators=["diffusion", "random"], policy=policy)
    assert [alone.round_size(number) for number in range(3)] == [10, 10, 10] and alone.candidates == 30
    building = make_config(policy=policy)
    assert [building.round_size(number) for number in range(3)] == [5, 5, 10] and building.candidates == 20
    assert sum(len(task) for task in planned(campaign_of(alone), 0)) == 10
    assert sum(len(task) for task in planned(campaign_of(building), 0)) == 5


# --- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generated", "batch", "sizes"), [(10, 4, [4, 4, 2]), (8, 8, [8]), (3, 8, [3]), (2, 1, [1, 1])]
)
def test_tasks_are_full_batches_and_a_rest(make_config, generated, batch, sizes):
    policy = {"candidates_per_round": generated, "batch": batch}
    tasks = planned(campaign_of(make_config(policy=policy, generators=["diffusion"])), 0)
    assert [len(task.candidates) for task in tasks] == sizes
    assert [len(task.templates) for task in tasks] == sizes


def test_batches_hold_crystals_of_similar_size_the_largest_first(make_config):
    config = make_config(compositions={"system": "Li-Si", "max_atoms": 9}, policy={**per_round(36, 16), "batch": 5})
    for task in planned(campaign_of(config), 0):
        sizes = [len(one.template.crystal) for one in task.candidates]
        assert sizes == sorted(sizes, reverse=True)


def test_what_is_left_of_several_generators_shares_a_batch(make_config):
    config = make_config(compositions={"system": "Li-Si", "max_atoms": 9}, policy={**per_round(36, 16), "batch": 5})
    tasks = planned(campaign_of(config), 0)
    assert [len(task.candidates) for task in tasks] == [5] * 7 + [1]  # and not a small one for each generator
    kinds = [{one.generator for one in task.candidates} for task in tasks]
    assert all(len(some) == 1 for some in kinds[:-3])
    assert len(kinds[-2]) > 1
    for task in tasks:
        assert all(one.settings == config.sampling.get(one.generator) for one in task.candidates)


# --- what is given up ---------------------------------------------------------------------------------------------


def test_relaxations_are_given_up_a_few_bars_above_the_hull_where_energies_decide(make_config):
    campaign = campaign_of(make_config(policy={"early_stop_factor": 3.0}))
    assert {task.relaxation.energy_ceiling for task in planned(campaign, 0, [])} == {3 * 0.05}
    hard = pretended(planned(campaign, 0, []), e_d=0.2)  # the bar is where the best crystals are
    assert all(task.relaxation.energy_ceiling == pytest.approx(3 * 0.2) for task in planned(campaign, 1, hard))
    for config in (
        make_config(policy={"early_stop_factor": None}),
        make_config(policy={"feedback": False}),
    ):
        assert {task.relaxation.energy_ceiling for task in planned(campaign_of(config), 0, [])} == {None}
    own = make_config(relaxation={"energy_ceiling": 0.3})
    assert {task.relaxation.energy_ceiling for task in planned(campaign_of(own), 0, [])} == {0.3}


def test_what_was_given_up_gives_no_frameworks(make_config, relaxation, cobaltate):
    (task, *_) = planned(campaign_of(make_config()), 0, [])
    crystal = cobaltate["rows"][0].initial.crystal
    relaxed, stopped = (relaxation(crystal, energy=-3.0, reason=reason) for reason in ("converged", "early_stopped"))
    task = replace(task, candidates=task.candidates[:3])
    assert guests_to_remove(task, [relaxed, stopped, Rejected("too_close")]) == [(), None, ()]


@pytest.mark.parametrize(
    "without", [{"generators": ["diffusion", "mutation"]}, {"policy": {"new_share": 1}}], ids=["method", "number"]
)
def test_a_search_that_fills_no_hosts_looks_for_none(make_config, without, relaxation, cobaltate):
    (task, *_) = planned(campaign_of(make_config(**without)), 0, [])
    crystal = cobaltate["rows"][0].initial.crystal
    task = replace(task, candidates=task.candidates[:1])
    assert guests_to_remove(task, [relaxation(crystal, energy=-3.0)]) == [None]


@pytest.mark.parametrize(("growth", "wanted"), [(1.04, None), (1.06, ("Li",)), (0.94, ("Li",))])
def test_a_filled_framework_whose_volume_moved_becomes_one_again(make_config, relaxation, host_file, growth, wanted):
    config = make_config(
        compositions={"formulas": ["LiCoO2"], "max_atoms": 4},
        frameworks={"files": [str(host_file)], "guests": ["Li"]},
        generators=["inpainting"],
    )
    (task, *_) = planned(campaign_of(config), 0, [])
    task = replace(task, candidates=task.candidates[:1])
    crystal = task.templates[0].crystal
    moved = replace(relaxation(crystal, energy=-3.0), final=crystal.replace(lattice=crystal.lattice * np.cbrt(growth)))
    assert guests_to_remove(task, [moved]) == [wanted]
    assert guests_to_remove(task, [Rejected("too_close")]) == [None]


def test_crystals_that_lie_too_high_for_the_pool_are_not_asked_for_frameworks(make_config, host_file):
    (file,) = frameworks_from_files([host_file])
    for pool, highest in ((2, np.inf), (1, 0.07)):
        campaign = campaign_of(make_config(policy={"max_parents": pool}))
        rows = pretended(planned(campaign, 0, [])[:1], e_d=0.07)
        found = replace(file, framework="f", guests={"Li": 1}, space_group_number=1)
        rows[0] = replace(rows[0], frameworks=[found])
        assert {task.max_parent_e_d for task in planned(campaign, 0, [])} == {np.inf}
        assert {task.max_parent_e_d for task in planned(campaign, 1, rows)} == {highest}
