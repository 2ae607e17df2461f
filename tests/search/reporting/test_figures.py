"""Interactive figures of the report: that they show the data, and that a click finds the candidate."""

import numpy as np
import pytest

from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.reporting import figures
from search.reporting.figure_data import hull_data
from search.storage.results import load_results


def hull_of(run, system):
    return hull_data(load_results(run, structures=False), Stability(packaged_reference(), system))


def test_points_of_a_binary_hull_open_their_candidates(small_run):
    data = hull_of(small_run, "Li-Si")
    traces = {trace.name: trace for trace in figures.hull(data).data}
    for name, phases in (("reference hull", data.stable), ("known, above hull", data.above)):
        assert list(traces[name].x) == [phase.fractions[1] for phase in phases]
        assert list(traces[name].y) == [phase.energy for phase in phases]
        assert list(traces[name].text) == [phase.formula for phase in phases]
    for name, one in zip(("new", "from_host"), data.found, strict=True):
        assert (*traces[name].x, *traces[name].y) == (0.5, one.energy)
        assert list(traces[name].customdata) == [one.candidate]
    assert list(traces["from_host"].text) == ["LiSi, P1, E_d +50.0 meV/atom"]


def test_points_of_a_triangle_open_their_candidates_with_the_best_on_top(small_run):
    *_, found = figures.hull(hull_of(small_run, "Li-Si-P")).data
    assert found.type == "scatterternary"
    assert list(found.customdata) == ["second", "first"]
    assert list(found.marker.color) == pytest.approx([50, 20])
    np.testing.assert_allclose([found.a, found.b, found.c], [[0.5, 0.5], [0.5, 0.5], [0, 0]])
