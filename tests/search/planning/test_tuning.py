import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
import yaml

from model.diffusion.sampler import AncestralSettings, HeunSettings
from model.relaxation.relax import RelaxSettings
from search.config import Tuning, changed, check_ranges
from search.config_file import load_config
from search.planning.campaign import Campaign, tuner
from search.planning.tuning import Trial, chosen, make_study, quality, suggest
from search.reporting.tuning_plots import plot_study, plot_tuning
from search.running.pipeline import Provenance, failed_rows
from search.storage.rows import StoredCrystal
from search.studies.tuning_search import tuning_search, with_settings
from tests.support.rows import row_with
from tests.support.simulated import planned

HEUN = HeunSettings()
RANGES = {"steps": (6, 32), "churn": (0.0, 1.0)}


def some_trials(count, seed=0):
    """Quality has its best at churn 0.2 and does not need many steps."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(count):
        steps, churn = int(rng.integers(6, 33)), float(rng.uniform())
        trials.append(Trial({"steps": steps, "churn": churn}, 1 - abs(churn - 0.2), 10.0 + steps))
    return trials


def made(tasks, **columns):
    """Rows of tasks as if every crystal had relaxed, the better the more churn its batch had."""
    rows = []
    for task in tasks:
        for row in failed_rows(task, "", "", Provenance("made", "none")):
            churn = json.loads(row.generator_settings).get("churn", 0)
            done = {
                "status": "relaxed",
                "e_d": 0.5 * (1 - churn) + 0.31,
                "energy": -3.0,
                "volume_per_atom": 16.0,
                "final": StoredCrystal.of(task.candidates[0].template.crystal),
                "steps": 9,
                "n_independent_atoms": row.n_atoms,
                "evaluations": 31,
            }
            rows.append(replace(row, **{**done, **columns}))
    return rows


# --- ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"step": (1, 2)}, r"tuning\.sampling\.diffusion\.step: no numeric field of this name; choose from steps"),
        ({"kind": (1, 2)}, r"tuning\.sampling\.diffusion\.kind"),
        ({"steps": (0, 20)}, r"tuning\.sampling\.diffusion\.steps: 0 is not allowed"),
        ({"sigma_max": (0.001, 3)}, r"tuning\.sampling\.diffusion\.sigma_max: 0\.001 is not allowed.*sigma_min"),
    ],
)
def test_a_range_that_cannot_be_is_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        check_ranges(HEUN, ranges, "sampling.diffusion")


def test_a_search_is_refused_with_the_same_words(make_config):
    with pytest.raises(ValueError, match=r"tuning\.sampling\.inpainting\.snr: no numeric field of this name"):
        make_config(sampling={"inpainting": {"kind": "heun"}}, tuning={"sampling": {"inpainting": {"snr": [0.1, 0.4]}}})
    with pytest.raises(ValueError, match=r"tuning\.sampling: symmetric cannot be tuned; choose from diffusion"):
        make_config(tuning={"sampling": {"symmetric": {"steps": [1, 2]}}})
    with pytest.raises(ValueError, match=r"tuning\.samples.*lowest < highest"):
        make_config(tuning={"samples": [3, 3]})


def test_whole_numbers_stay_whole_and_others_as_they_are():
    group = changed(HEUN, {"steps": 7.0, "churn": 0.25})
    assert (group.steps, group.churn) == (7, 0.25) and isinstance(group.steps, int)
    assert changed(RelaxSettings(), {"max_steps": 33.0}).max_steps == 33


# --- suggestions --------------------------------------------------------------------------------------------------


def test_the_same_trials_and_seed_give_the_same_values():
    trials = some_trials(25)
    assert suggest(HEUN, RANGES, trials, 3) == suggest(HEUN, RANGES, trials, 3)
    assert suggest(HEUN, RANGES, trials, 3) != suggest(HEUN, RANGES, trials, 4)
    assert suggest(HEUN, RANGES, trials, 3) != suggest(HEUN, RANGES, trials[:20], 3)


def test_suggestions_go_where_quality_is_high_and_cost_low():
    """Blind ones are uniform: of 20, 16 fall into 7 of 27 steps, or as many into 0.4 of the churn, once in 10^5."""
    trials = some_trials(60)
    equally_dear = [replace(trial, cost=10.0) for trial in trials]
    equally_good = [replace(trial, quality=0.5) for trial in trials]
    some, dear, good = (
        [suggest(HEUN, RANGES, told, seed) for seed in range(20)] for told in (trials, equally_dear, equally_good)
    )
    for values in (some, good):
        assert sum(value["steps"] <= 12 for value in values) >= 16
    assert sum(abs(value["churn"] - 0.2) <= 0.2 for value in dear) >= 16
    blind = [suggest(HEUN, RANGES, [], seed)["steps"] for seed in range(20)]
    assert abs(np.mean(blind) - 19) < 4 * np.sqrt((27**2 - 1) / 12 / 20)


def test_suggestions_keep_away_from_what_is_under_way():
    trials = some_trials(30)
    first = suggest(HEUN, RANGES, trials, 3)
    assert suggest(HEUN, RANGES, [*trials, *[Trial(first)] * 5], 3) != first


def test_a_study_holds_the_trials_as_they_were():
    study = make_study(HEUN, RANGES, [*some_trials(4), Trial({"steps": 6, "churn": 0.5})])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["RUNNING"]
    assert study.trials[0].params == some_trials(1)[0].values
    assert study.directions == [optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE]


def test_quality_is_one_on_the_hull_and_failures_count_nothing():
    def row(e_d, status="relaxed"):
        return row_with(e_d=e_d, status=status)

    assert quality([row(-0.2), row(0.0)], 0.1) == 1
    assert quality([row(0.1)], 0.1) == pytest.approx(np.exp(-1))
    assert quality([row(0.0), row(0.0, "unconverged"), row(None, "rejected"), row(None, "failed")], 0.1) == 0.25


def test_the_best_trial_has_the_most_quality_for_its_work_among_its_neighbours():
    best = chosen(some_trials(200), RANGES)
    assert best.values["steps"] < 12 and abs(best.values["churn"] - 0.2) < 0.25
    lucky = Trial({"steps": 32, "churn": 1.0}, 5.0, 10.0)
    assert chosen([*some_trials(200), lucky], RANGES) == best
    with pytest.raises(ValueError, match="no batch is complete"):
        chosen([Trial({"steps": 6, "churn": 0.5})], RANGES)


# --- within a search ----------------------------------------------------------------------------------------------


def tuned_config(make_config, seed=0, **policy):
    return make_config(
        seed=seed,
        sampling={"diffusion": {"kind": "heun"}},
        generators=["diffusion"],
        tuning={"sampling": {"diffusion": RANGES}, "relaxation": {"max_steps": [50, 150]}},
        policy={"candidates_per_round": 8, "batch": 2, "rounds_ahead": 0, **policy},
    )


def test_every_batch_of_a_search_tries_settings_of_its_own(make_config):
    tasks = planned(Campaign(tuned_config(make_config), lambda cell: 16.0), 0, [])
    assert (
        len({candidate.settings.model_dump_json() for task in tasks for candidate in task.candidates})
        == len(tasks)
        == 4
    )
    assert len({task.relaxation.max_steps for task in tasks}) > 1
    assert {type(candidate.settings) for task in tasks for candidate in task.candidates} == {HeunSettings}


def searched(config, rounds):
    """Campaign and rows of some rounds."""
    campaign, rows = Campaign(config, lambda cell: 16.0), []
    for number in range(rounds):
        rows += made(planned(campaign, number, rows))
    return campaign, rows


def test_a_search_learns_from_its_batches(make_config):
    late = {}
    for seed in range(5):
        _, rows = searched(tuned_config(make_config, seed=seed), 12)
        late |= {row.task: json.loads(row.generator_settings)["churn"] for row in rows if row.round >= 6}
    assert np.mean(list(late.values())) > 0.5 + 4 * np.sqrt(1 / 12 / len(late))  # of uniform numbers once in 30,000


def test_a_resumed_search_tries_the_same_settings(make_config):
    config = tuned_config(make_config)
    campaign, rows = searched(config, 12)
    again = planned(Campaign(config, lambda cell: 16.0), 12, rows[::-1])
    assert [task.settings for task in planned(campaign, 12, rows)] == [task.settings for task in again]


def test_without_ranges_settings_are_as_configured(make_config):
    policy = {"early_stop_factor": None}
    config = make_config(
        sampling={"diffusion": {"kind": "ancestral", "steps": 9}}, generators=["diffusion"], policy=policy
    )
    (task, *_) = planned(Campaign(config, lambda cell: 16.0), 0, [])
    assert set(task.settings) == {AncestralSettings(steps=9)} and task.relaxation == config.relaxation


def test_samples_under_way_are_known(make_config):
    config = make_config(tuning=Tuning(samples=(1, 6)))
    rows = [row_with(role="from_host", round=4, samples=5)]
    found = tuner(config, [], 0.1)
    found.note_pending(rows)
    assert [trial.values for trial in found.trials["samples"]] == [{"samples": 5}]


def test_samples_a_framework_are_tuned_round_by_round(make_config):
    config = make_config(tuning=Tuning(samples=(1, 6)))
    rows = made(planned(Campaign(config, lambda cell: 16.0), 0, []), role="from_host")
    rows = [replace(row, round=k % 3, samples=1 + k % 3, candidate=f"{k:03d}") for k, row in enumerate(rows)]
    found = tuner(config, rows, 0.1)
    assert [trial.values for trial in found.trials["samples"]] == [{"samples": 1}, {"samples": 2}, {"samples": 3}]
    assert 1 <= found.next("samples", 0).samples <= 6


# --- the command --------------------------------------------------------------------------------------------------


def test_settings_are_written_back_and_nothing_is_left_to_tune(make_config):
    config = make_config(
        sampling={"diffusion": {"kind": "heun"}}, tuning={"sampling": {"diffusion": RANGES}, "samples": [1, 5]}
    )
    best = {"diffusion": Trial({"steps": 8, "churn": 0.1}), "samples": Trial({"samples": 4})}
    after = with_settings(config, best)
    diffusion = after.sampling["diffusion"]
    assert (diffusion.steps, diffusion.churn, after.policy.samples) == (8, 0.1, 4)
    assert after.tuning == Tuning()
    assert after.compositions == config.compositions


def test_the_samplers_are_tuned_when_nothing_is_named(make_config):
    trial = tuning_search(make_config(sampling={"inpainting": {"kind": "predictor-corrector"}}), 5)
    assert set(trial.tuning.sampling["inpainting"]) == {"steps", "correctors", "snr", "resamples", "jump"}
    assert trial.tuning.sampling["diffusion"] and not trial.tuning.relaxation
    assert (trial.policy.rounds, trial.policy.feedback) == (5, False)


def test_pictures_are_optunas(tmp_path):
    paths = plot_study(make_study(HEUN, RANGES, some_trials(12)), tmp_path, "diffusion")
    assert [path.name for path in paths] == [f"diffusion-{what}.html" for what in ("history", "front", "importance")]
    assert all("plotly" in path.read_text() for path in paths)


def test_the_command_tunes_and_resumes(tmp_path, call):
    source = tmp_path / "tiny.yaml"
    content = {
        "name": "tiny",
        "compositions": {"cells": [{"Li": 2, "Si": 1}, {"Li": 3, "Si": 1}]},
        "frameworks": {"guests": ["Li"]},
        "sampling": {"diffusion": {"kind": "heun", "steps": 3}, "inpainting": {"kind": "heun", "steps": 3}},
        "relaxation": {"max_steps": 8},
        "policy": {"batch": 2},
        "tuning": {"sampling": {"diffusion": {"steps": [2, 4]}, "inpainting": {"steps": [2, 4], "churn": [0, 1]}}},
    }
    source.write_text(yaml.safe_dump(content))
    run, out = tmp_path / "run", tmp_path / "tuned.yaml"
    assert call("tune", source, "--trials", 2, "--run", run, "--out", out)[0] == 0
    before = {path.name: path.stat().st_mtime_ns for path in (run / "candidates").iterdir()}
    assert call("tune", source, "--trials", 3, "--run", run, "--out", out)[0] == 0
    after = {path.name: path.stat().st_mtime_ns for path in (run / "candidates").iterdir()}
    assert before.items() <= after.items() and len(before) < len(after)
    tuned = load_config(out)
    assert 2 <= tuned.sampling["diffusion"].steps <= 4 and tuned.tuning == Tuning()
    assert len(plot_tuning(load_config(run / "config.yaml"), run, tmp_path / "plots")) >= 2


def test_in_a_batch_of_several_generators_only_those_that_are_tuned_count(make_config):
    config = tuned_config(make_config).model_copy(update={"generators": ("diffusion", "random")})
    config = config.model_copy(
        update={"policy": config.policy.model_copy(update={"candidates_per_round": 6, "batch": 4})}
    )
    campaign = Campaign(config, lambda cell: 16.0)
    (task, rest) = planned(campaign, 0, [])
    assert {candidate.generator for candidate in (*task.candidates, *rest.candidates)} == {"diffusion", "random"}
    rows = made([task, rest])
    trials = tuner(config, rows, 0.05).trials["diffusion"]
    tuned = [{one.settings for one in some.candidates if one.generator == "diffusion"} for some in (task, rest)]
    assert [trial.values["churn"] for trial in trials] == [next(iter(some)).churn for some in tuned if some]
