"""The data of the figures: that they say what the rows say."""

import numpy as np
import pandas as pd
import pytest

from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.reporting.figure_data import (
    CURVES,
    HullData,
    HullPhase,
    ProgressCurve,
    SymmetryShares,
    changes_data,
    funnel_data,
    furthest_way,
    hull_data,
    progress_data,
    symmetry_data,
)
from search.storage.results import load_results


def hull_of(run, system):
    return hull_data(load_results(run, structures=False), Stability(packaged_reference(), system))


def frame_of(columns, *rows):
    """Relaxed, new candidates; each row gives the values of the columns (named in one string)."""
    frame = pd.DataFrame(rows, columns=columns.split())
    rest = {"candidate": [f"c{i}" for i in range(len(frame))], "status": "relaxed", "role": "new", "e_d": 0.0}
    rest["seconds_judge"] = None
    frame = frame.assign(**{column: value for column, value in rest.items() if column not in frame})
    return frame.assign(e_d_believed=frame["e_d"])


def test_candidates_lie_e_d_above_the_hull(small_run):
    hull = hull_of(small_run, "Li-Si")
    x, y = ([phase.fractions[1] for phase in hull.stable], [phase.energy for phase in hull.stable])
    assert (np.diff(x) > 0).all() and (x[0], x[-1]) == (0, 1) and hull.elements == ("Li", "Si")
    np.testing.assert_allclose([y[0], y[-1]], 0, atol=1e-12)
    assert "LiSi" in {phase.formula for phase in hull.above}
    assert all(phase.energy > np.interp(phase.fractions[1], x, y) for phase in hull.above)
    first, second = hull.found
    assert (first.candidate, first.role, first.space_group) == ("first", "new", "R-3m")
    assert (second.candidate, second.role, second.space_group) == ("second", "from_host", "P1")
    np.testing.assert_allclose([first.energy, second.energy], np.interp(0.5, x, y) + np.array([0.02, 0.05]), atol=1e-9)
    neighbours = zip(hull.stable[:-1], hull.stable[1:], strict=True)
    assert {frozenset(pair) for pair in hull.tie_lines} == {frozenset(pair) for pair in neighbours}


def test_tie_lines_divide_a_ternary_system_into_triangles(small_run):
    hull = hull_of(small_run, "Li-Si-P")
    assert hull.elements == ("Li", "Si", "P")  # by electronegativity
    assert all(abs(sum(phase.fractions) - 1) < 1e-12 for phase in (*hull.stable, *hull.above, *hull.found))
    assert len({frozenset(pair) for pair in hull.tie_lines}) == len(hull.tie_lines)
    assert {phase for pair in hull.tie_lines for phase in pair} == set(hull.stable)
    on_border = sum(0 in phase.fractions for phase in hull.stable)
    assert len(hull.tie_lines) == 3 * len(hull.stable) - 3 - on_border  # Euler's formula


def test_other_numbers_of_elements_have_no_hull_data(small_run):
    assert hull_of(small_run, "Li-Si-P-S") is None


def test_the_order_of_phases_above_the_hull_is_fixed(small_run):
    above = [phase.fractions[1] for phase in hull_of(small_run, "Li-Si").above]
    assert len(above) > 2 and above == sorted(above)


def test_names_of_phases_stand_below_the_hull_apart_from_each_other():
    points = [(0.0, 0.0), (0.2, -0.2), (0.3, -0.3), (0.5, -0.25), (0.6, -0.1), (1.0, 0.0)]
    stable = [HullPhase(formula="", fractions=(1 - at, at), energy=energy) for at, energy in points]
    hull = HullData(elements=("Li", "Si"), stable=stable, above=[], tie_lines=[], found=[])
    assert [hull.name_place(phase) for phase in stable[1:-1]] == [(-1, 0), (0, 1), (1, 1), (1, 0)]


def test_progress_is_the_best_so_far_at_each_improvement_and_at_the_end():
    columns = "candidate round formula status e_d seconds_generate seconds_relax seconds_analyse"
    frame = frame_of(
        columns,
        ("d", 2, "A", "relaxed", 0.1, 30, 30, 0),  # rows come sorted by E_d, not by time
        ("a", 1, "A", "relaxed", 0.3, 0, 60, 0),
        ("c", 1, "A", "relaxed", 0.4, 0, 60, 0),  # no improvement
        ("b", 1, "A", "rejected", None, 60, None, None),  # counts as time alone
        ("e", 2, "B", "relaxed", -0.02, 0, 50, 10),
    )
    progress = progress_data(frame)
    lowest, other = progress.curves
    assert lowest == ProgressCurve(formula="B", minutes=[5, 5], e_d=[-20, -20])
    assert other == ProgressCurve(formula="A", minutes=[1, 4, 5], e_d=[300, 100, 100])
    assert progress.e_d_range == (-22, 300)


def test_progress_shows_the_compositions_with_the_lowest_e_d():
    rows = [(1, str(i), i / 100, 1, 1, 1) for i in range(CURVES + 3)]
    progress = progress_data(frame_of("round formula e_d seconds_generate seconds_relax seconds_analyse", *rows))
    assert [curve.formula for curve in progress.curves] == [str(i) for i in range(CURVES)]
    assert progress.e_d_range == pytest.approx((-5, 1.1 * 10 * (CURVES - 1) + 5))


def test_symmetry_counts_space_groups_above_two_by_role_and_number_of_atoms():
    frame = frame_of(
        "role n_atoms space_group_number status",
        ("new", 4, 1, "relaxed"),
        ("new", 4, 2, "relaxed"),
        ("new", 4, 3, "relaxed"),
        ("new", 4, 225, "relaxed"),
        ("new", 2, None, "relaxed"),
        ("new", 4, 225, "unconverged"),
        ("from_host", 8, 166, "relaxed"),
    )
    assert symmetry_data(frame).roles == {
        "new": SymmetryShares(atoms=[2, 4], percent=[0, 50], crystals=[1, 4]),
        "from_host": SymmetryShares(atoms=[8], percent=[100], crystals=[1]),
    }


def test_changes_are_those_of_the_relaxed_candidates(small_run, lisi):
    changes = changes_data(load_results(small_run, structures=False))
    assert changes.energy.values == {"new": [pytest.approx(0.1)], "from_host": [pytest.approx(0.1)]}
    way = 0.02 * np.linalg.norm(lisi.lattice[2]) / 2  # half of the atoms moved, so the drift is half the way
    assert np.mean(lisi.numbers == 3) == 0.5
    assert changes.displacement.values == {"new": [pytest.approx(way)], "from_host": [pytest.approx(1.2 * way)]}


def test_the_furthest_way_leaves_out_drift_and_whole_cells(lisi):
    assert furthest_way(lisi, lisi.replace(fractional=lisi.fractional + np.array([0.3, 1.2, -2.0]))) < 1e-9
    one = lisi.fractional.copy()
    one[0] += [0.1, 0, 0]
    n, way = len(lisi), np.linalg.norm(0.1 * lisi.lattice[0])
    np.testing.assert_allclose(furthest_way(lisi, lisi.replace(fractional=one)), way * (n - 1) / n)


def test_the_funnel_counts_what_each_step_leaves():
    frame = frame_of(
        "status reason e_d duplicate_of",
        ("relaxed", "", 0.01, None),
        ("relaxed", "", 0.01, "c0"),
        ("relaxed", "", 0.07, None),
        ("relaxed", "", 0.2, None),
        ("unconverged", "step_limit", None, None),
        ("rejected", "too_close", None, None),
        ("rejected", "too_close", None, None),
    )
    funnel = funnel_data(frame)
    assert list(funnel.left.values()) == [7, 5, 4, 3, 2, 1]
    assert list(funnel.dropped.items()) == [("step limit", 1), ("too close", 2)]
