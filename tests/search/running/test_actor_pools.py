"""Where the actors of a search run: devices, shares of GPUs, and errors before any work starts."""

import pytest

from actors.cluster import Capacity
from search.planning.prepare import load_reference
from search.running.actor_pools import ActorPools, ray_options, steps_on_gpu
from search.running.steps import Step

COUNTS = {Step.PLAN: 1, Step.GENERATE: 1, Step.RELAX: 2, Step.ANALYSE: 1, Step.JUDGE: 1}


def placed(make_config, gpus, **models):
    return steps_on_gpu(make_config(models=models), Capacity(cpus=4, gpus=gpus))


def test_by_default_only_crystal_makers_use_a_gpu(make_config):
    assert placed(make_config, 1) == {Step.GENERATE}
    assert placed(make_config, 0) == placed(make_config, 1, device="cpu") == set()


def test_relaxers_go_where_they_are_told(make_config):
    assert placed(make_config, 1, relax_on="auto") == {Step.GENERATE, Step.RELAX}
    assert placed(make_config, 0, relax_on="auto") == set()
    assert placed(make_config, 1, relax_on="cuda", device="cpu") == {Step.RELAX}


@pytest.mark.parametrize(("gpus", "share"), [(1, 1 / 4), (2, 1 / 2), (3, 1 / 2), (4, 1), (8, 1)])
def test_actors_share_gpus_equally_if_there_are_too_few(gpus, share):
    on_gpu = frozenset([Step.GENERATE, Step.RELAX, Step.JUDGE])
    options = ray_options(on_gpu, COUNTS, Capacity(cpus=4, gpus=gpus))
    assert {options[step]["num_gpus"] for step in on_gpu} == {share}
    assert all(options[step]["num_cpus"] == 0 and "num_gpus" not in options[step] for step in (Step.PLAN, Step.ANALYSE))


def test_relaxers_on_cpus_have_one_each():
    assert ray_options(frozenset(), COUNTS, Capacity(cpus=4, gpus=0))[Step.RELAX] == {"num_cpus": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"models": {"device": "cuda"}}, "models.device: cuda was requested, but Ray finds no GPU; use cpu"),
        ({"models": {"relax_on": "cuda"}}, "models.relax_on: cuda was requested"),
        ({"judge": {"potential": "chgnet-r2scan", "device": "cuda"}}, "judge.device: cuda was requested"),
        ({"resources": {"relax_actors": 9}}, "9 requested, but there are 4 CPUs"),
    ],
)
def test_what_the_machine_lacks_is_said_before_any_actor_starts(make_config, content, words):
    config = make_config(**content)
    with pytest.raises(ValueError, match=words):
        ActorPools(config, load_reference(config), Capacity(cpus=4, gpus=0))
