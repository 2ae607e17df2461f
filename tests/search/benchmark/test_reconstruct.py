"""The reconstruction benchmark: what counts as a match, how it is ranked and counted, baselines, resuming."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch

from model.crystals.crystal import Crystal
from model.crystals.screening import too_close
from model.diffusion.sampler import AncestralSettings, HeunSettings, Template
from model.generation.initial_placements import uniform, voronoi_voids
from search.benchmark.log import RecordLog
from search.benchmark.methods import make_method, parse_sampler
from search.benchmark.reconstruct import Case, Placement, Record, load_cases, match, reconstruct
from search.benchmark.residuals import denoising_residuals, guests_relaxed
from search.benchmark.run import BenchmarkSettings, run_benchmark
from search.benchmark.summary import figures, summarise
from search.benchmark.training_hosts import TrainingCrystals
from search.reporting.records import schema

SALT = Crystal(
    5.64 * np.eye(3),
    [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]],
    [17] * 4 + [11] * 4,
)
CASE = Case("salt", SALT, "Na")
FLUORITE = Crystal(
    5.46 * np.eye(3),
    [
        [0, 0, 0],
        [0.5, 0.5, 0],
        [0.5, 0, 0.5],
        [0, 0.5, 0.5],
        *[[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)],
    ],
    [20] * 4 + [9] * 8,
)


def moved(crystal: Crystal, atom: int, shift: float) -> Crystal:
    fractional = crystal.fractional.copy()
    fractional[atom, 0] += shift / crystal.lattice[0, 0]
    return crystal.replace(fractional=fractional)


def half_right(case: Case, seeds) -> tuple[list[Crystal], int]:
    """The crystal itself, or, for odd attempts, with a guest in a wrong place."""
    return [moved(case.crystal, 7, 1.4) if i % 2 else case.crystal for i in range(len(seeds))], 31


def test_the_original_matches_without_error_and_a_lost_guest_does_not():
    assert match(SALT, CASE) == pytest.approx(0.0, abs=1e-6)
    assert match(moved(SALT, 7, 2.0), CASE) is None


def test_the_error_is_counted_per_guest():
    """One of four guests 0.2 Å off: the matcher takes out the mean shift of all eight atoms, 0.025 Å."""
    expected = np.sqrt((0.2**2 - 8 * 0.025**2) / 4)
    assert match(moved(SALT, 7, 0.2), CASE) == pytest.approx(expected, rel=0.05)


def test_shares_are_means_over_attempts_and_over_guests():
    record = reconstruct(CASE, "half", half_right, samples=4)
    result = summarise([record, replace(record, case="other")])
    assert result["summary"]["raw_match"] == 0.5 and result["summary"]["oracle_match"] == 1.0
    assert result["summary"]["raw_match_std"] == 0.5  # runs 1 and 3 are all right, 2 and 4 all wrong
    assert result["summary"]["ranked_match"] is None and result["summary"]["evaluations"] == 31
    assert result["bins"]["atoms 1-10"]["cases"] == 2


def test_ranking_counts_the_lowest_and_says_who_disagrees():
    """Four cases: right; wrong and below the original; wrong and above it; nothing made."""
    base = Record(
        method="m",
        case="a",
        guest="Li",
        atoms=8,
        guest_fraction=0.5,
        new_host=True,
        attempts=(),
        samples=2,
        original=-5.0,
        max_force=0.1,
        energy_drop=0.002,
        evaluations=39,
        seconds=0.1,
    )
    good = Placement(matched=True, rmse=0.02, relaxed_matched=True, relaxed_rmse=0.01, single_point=-4.0, relaxed=-5.0)
    bad = Placement(matched=False, rmse=None, relaxed_matched=False, single_point=-4.5, relaxed=-4.9)
    records = [
        replace(base, attempts=(good, bad)),
        replace(base, attempts=(good, replace(bad, relaxed=-5.1))),
        replace(base, attempts=(bad, replace(bad, relaxed=-4.8)), new_host=False),
        base,
    ]
    found = figures(records)
    assert found["ranked_match"] == 0.25 and found["ranked_single_point"] == 0.0
    assert found["potential_prefers_other"] == 0.25 and found["not_recovered"] == 0.5
    assert found["raw_match"] == 2 / 8 and found["oracle_match"] == 0.5
    bins = summarise(records)["bins"]
    assert bins["host new"]["cases"] == 3 and bins["host known from training"]["ranked_match"] == 0.0


def test_relaxed_guests_rank_the_true_crystal_first_and_hosts_stay():
    """CHGNet on fluorite: Ca 0.4 Å off its site falls back, Ca in the empty cube stays above."""
    from model.potentials.chgnet.potential import CHGNetPotential

    fluorite = Case("fluorite", FLUORITE, "Ca")
    wrong = FLUORITE.replace(fractional=np.concatenate([[[0.5, 0, 0]], FLUORITE.fractional[1:]]))
    crystals = [moved(FLUORITE, 0, 0.4), wrong]
    record = reconstruct(fluorite, "two", lambda case, seeds: (crystals, 0), samples=2, potential=CHGNetPotential())
    one, other = record.attempts
    assert one.relaxed_matched and one.relaxed == pytest.approx(record.original, abs=1e-3)
    assert one.single_point > one.relaxed and other.relaxed > one.relaxed + 0.01
    final = guests_relaxed(crystals, [fluorite.mask] * 2, CHGNetPotential())[0].final
    np.testing.assert_allclose(final.fractional[4:], FLUORITE.fractional[4:], atol=1e-12)


def test_residual_is_zero_for_the_crystal_that_a_perfect_denoiser_knows():
    target = torch.from_numpy(SALT.cartesian).float()

    def denoiser(batch, sigma, guest):
        step = (target.repeat(len(batch), 1) - batch.positions) / 5.64
        return 5.64 * (step - step.round())

    templates = [Template(crystal=crystal, guest=CASE.mask, seed=0) for crystal in (SALT, moved(SALT, 7, 0.4))]
    right, wrong = denoising_residuals(denoiser, templates, sigmas=(0.1, 0.2))
    assert right == pytest.approx(0.0, abs=1e-6)
    # one of four guests is answered with 0.4 Å too much: mean over sigma of 0.16 / 4 / 3 sigma²
    assert wrong == pytest.approx(0.16 / 12 * (1 / 0.01 + 1 / 0.04) / 2, rel=1e-3)


def test_starts_overlap_with_nothing_and_depend_on_the_seed_only():
    templates = [Template(crystal=FLUORITE, guest=FLUORITE.numbers == 20, seed=seed) for seed in (1, 2)]
    for place in (uniform, voronoi_voids):
        made = [place(template) for template in templates]
        assert not too_close(made[0].crystal) and made[0].start_here
        assert made[0].crystal.identity == place(templates[0]).crystal.identity != made[1].crystal.identity
        np.testing.assert_array_equal(made[0].crystal.fractional[4:], FLUORITE.fractional[4:])


def test_the_void_of_a_crowded_host_is_its_empty_site():
    template = Template(crystal=FLUORITE, guest=np.arange(12) == 0, seed=3)
    placed, spread = (
        np.array(
            [voronoi_voids(replace(template, seed=seed), spread=width).crystal.fractional[0] for seed in range(60)]
        )
        for width in (0, 0.1)
    )
    # The site itself and the four empty cubes of fluorine; in all other holes it would overlap.
    assert np.abs(placed - 0.5 * np.round(2 * placed)).max() < 1e-6
    visits = Counter(map(tuple, np.round(2 * placed).astype(int).tolist()))
    assert sorted(visits) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
    assert max(abs(count - 12) for count in visits.values()) < 4 * np.sqrt(60 * 0.2 * 0.8)  # equally wide ones
    offset = 5.46 * (spread - placed)
    assert abs(offset.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * offset.size)
    assert abs(offset.mean()) < 4 * 0.1 / np.sqrt(offset.size)


def write(path: Path, splits: list[str], guests: list[str], crystals: list[Crystal] | None = None) -> Path:
    rows = [
        {
            "material_id": f"salt-{index}",
            "split": split,
            "guest": guest,
            "cell": [*np.diag(one.lattice), 90, 90, 90],
            "atomic_numbers": one.numbers.tolist(),
            "frac_coords": one.fractional.ravel().tolist(),
        }
        for index, (split, guest, one) in enumerate(zip(splits, guests, crystals or [SALT] * len(splits), strict=True))
    ]
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_cases_are_chosen_by_split_guest_and_limit(tmp_path):
    path = write(tmp_path / "data.parquet", ["test"] * 4 + ["train"], ["Na", "Na", "Na", "", "Na"])
    assert len(load_cases(path, split="test")) == 3
    assert len(load_cases(path, split="test", limit=2)) == 2
    sodium = write(tmp_path / "pure.parquet", ["test"] * 2, ["Na"] * 2, [SALT, SALT.select(CASE.mask)])
    assert len(load_cases(sodium, split="test")) == 1  # the other has no host
    with pytest.raises(ValueError, match="no case of split 'test' with guest Li"):
        load_cases(path, split="test", guest="Li")
    with pytest.raises(ValueError, match="does not exist"):
        load_cases(tmp_path / "none.parquet", split="test")


def test_seeds_of_a_case_do_not_depend_on_other_cases_and_differ_between_cases():
    assert CASE.seeds(3, 0) == CASE.seeds(5, 0)[:3]
    assert CASE.seeds(3, 0) != CASE.seeds(3, 1)
    assert CASE.seeds(3, 0) != replace(CASE, name="other").seeds(3, 0)


def test_hosts_are_known_and_guests_exchanged_by_structure_not_by_formula(tmp_path):
    """Training has CaF2 and potassium bromide as rock salt, and a CsCl-like NaCl; asked are fluorides and NaCl."""
    bromide = SALT.replace(lattice=6.6 * np.eye(3), numbers=np.array([35] * 4 + [19] * 4))
    other = Crystal(3.4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [17, 11])
    path = write(tmp_path / "train.parquet", ["train"] * 3, [""] * 3, [FLUORITE, bromide, other])
    strontium = Case("s", FLUORITE.replace(numbers=np.array([38] * 4 + [9] * 8)), "Sr")
    cases = [CASE, strontium]
    prototypes = TrainingCrystals(path, [(case.host, int(case.mask.sum())) for case in cases])
    assert not prototypes.is_new(strontium.host)  # fluorine of CaF2 without calcium
    assert prototypes.is_new(CASE.host)  # chlorine is simple cubic in the training crystal, face-centred here
    for case in cases:
        made = prototypes.substituted(case.host, case.guest, int(case.mask.sum()))
        assert made and match(made[0], case) is not None
        assert made[0].formula == case.crystal.formula
    with pytest.raises(ValueError, match="no crystal of split 'train'"):
        TrainingCrystals(write(tmp_path / "test.parquet", ["test"], ["Na"]), [])


def test_methods_are_named_and_bad_ones_explained():
    assert parse_sampler("ancestral:steps=12,temperature=0.3") == AncestralSettings(steps=12, temperature=0.3)
    assert parse_sampler("heun") == HeunSettings()
    for name, message in [
        ("magic", "unknown method 'magic': use random, voids, substitution"),
        ("heun:step=3", "step"),
        ("up+heun", "the part before \\+ must be one of voids, symmetric, mixed, not 'up'"),
        ("substitution", "needs training crystals"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_method(name, None, None)


METHODS = ["ancestral:steps=2", "mixed+heun:steps=1", "random"]


def run(path: Path, out: Path, weights: Path, *, samples: int = 2, **options) -> dict:
    settings = BenchmarkSettings(samples=samples, rank=False, residual=True)
    result = run_benchmark(path, METHODS, settings, weights=str(weights), out=out, **options)
    assert json.loads(out.read_text()) == result
    return result


def test_the_benchmark_goes_on_where_it_stopped_and_shares_add_up(tmp_path, tiny_weights):
    path = write(tmp_path / "data.parquet", ["test"] * 3 + ["train"], ["Na", "Na", "Cl", ""])
    steps: list[tuple[int, int]] = []
    whole = run(path, tmp_path / "whole.json", tiny_weights, report=lambda *step: steps.append(step))
    assert steps == [(number, 9) for number in range(1, 10)]
    assert list(whole["methods"]) == METHODS and whole["hosts_compared"]
    assert whole["guests"]["Na"]["cases"] == 2 and whole["summary"]["evaluations"] == 2
    assert json.loads((tmp_path / "whole.json").read_text())["summary"].keys() >= {
        "raw_match",
        "ranked_match",
        "oracle_match",
        "rmse_median",
        "evaluations",
        "seconds_per_sample",
    }
    log = tmp_path / "shares.jsonl"
    run(path, tmp_path / "shares.json", tiny_weights, share=(2, 2))
    assert len(log.read_text().splitlines()) == 1 + 3
    log.write_text(log.read_text()[:-40])  # killed while it wrote
    shared = run(path, tmp_path / "shares.json", tiny_weights)
    timeless = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in sorted_records(tmp_path / name)]
        for name in ("whole.jsonl", "shares.jsonl")
    ]
    assert timeless[0] == timeless[1]
    assert shared["summary"]["raw_match"] == whole["summary"]["raw_match"]
    with pytest.raises(ValueError, match=r"contains a benchmark with samples 2 \(now 3\)"):
        run(path, tmp_path / "shares.json", tiny_weights, samples=3)


def test_the_command_says_what_was_found_and_what_not(tmp_path, tiny_weights, call):
    path = write(tmp_path / "data.parquet", ["test"] * 3, ["Na"] * 3)
    options = ["--data", path, "--method", "random", "--weights", tiny_weights, "--no-rank", "--samples", 2]
    code, said, _ = call("benchmark", "reconstruct", *options, "--shard", "1/2", "--json", tmp_path / "some.json")
    assert code == 0 and "2 of 3" in said and "data.parquet has no crystal of split 'train'" in said
    found = json.loads((tmp_path / "some.json").read_text())
    jsonschema.validate(found, schema("benchmark reconstruct"))
    assert found["methods"]["random"]["guests"]["Na"]["cases"] == 2
    code, _, error = call("benchmark", "reconstruct", *options, "--shard", "3/2")
    assert code == 2 and "--shard must be k/n with k from 1 to n, for example 1/4; got '3/2'" in error
    code, _, error = call("benchmark", "reconstruct", *options, "--train", path)
    assert code == 2 and "has no crystal of split 'train'" in error


def sorted_records(path: Path) -> list[dict]:
    lines = path.read_text().splitlines()[1:]
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return sorted(records, key=lambda one: (one["method"], one["case"]))


def test_records_survive_the_file(tmp_path):
    record, header = reconstruct(CASE, "half", half_right, samples=2), {"samples": 2}
    assert len(record.attempts) == 2
    RecordLog(tmp_path / "log.jsonl", header).add(record)
    assert RecordLog(tmp_path / "log.jsonl", header).chosen("half", [CASE]) == [record]
