"""Pictures of a run: that they show what the report's figures hold."""

import numpy as np

from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.reporting import figures
from search.reporting.plots import draw_changes, draw_line, draw_symmetry, draw_triangle, plot_run
from search.storage.results import load_results


def frame_of(run):
    return load_results(run, structures=False)


def stability_of(system):
    return Stability(packaged_reference(), system)


def offsets(axes):
    """Points drawn as dots: label -> (n, 2)."""
    return {dots.get_label(): np.asarray(dots.get_offsets()) for dots in axes.collections}


def test_dots_of_a_binary_hull_are_those_of_the_report(small_run):
    hull = figures.hull(frame_of(small_run), stability_of("Li-Si"))
    (axes,) = draw_line(hull).axes
    traces = {trace.name: trace for trace in hull.data}
    np.testing.assert_allclose(axes.lines[0].get_ydata(), traces["reference hull"].y)
    for name in ("new", "from_host"):
        np.testing.assert_allclose(offsets(axes)[name], np.column_stack([traces[name].x, traces[name].y]))


def test_names_of_phases_stand_below_the_hull_apart_from_each_other():
    phases = [(0.0, 0.0), (0.2, -0.2), (0.3, -0.3), (0.5, -0.25), (0.6, -0.1), (1.0, 0.0)]
    places = [figures.name_place(at, phases) for at, _ in phases[1:-1]]
    assert places == [(-1, 0), (0, 1), (1, 1), (1, 0)]


def test_corners_of_the_triangle_are_the_elements(small_run):
    hull = figures.hull(frame_of(small_run), stability_of("Li-Si-P"))
    axes = draw_triangle(hull).axes[0]
    at = {text.get_text(): text.xy for text in axes.texts}
    np.testing.assert_allclose(at["Li"], [0.5, np.sqrt(0.75)])  # the least electronegative on top
    np.testing.assert_allclose([at["Si"], at["P"]], [[0, 0], [1, 0]], atol=1e-12)
    middle = offsets(axes)["found"]
    np.testing.assert_allclose(middle, np.tile([0.25, np.sqrt(0.75) / 2], (len(middle), 1)))  # LiSi: half way to Si


def test_histograms_hold_all_candidates_and_bars_their_share(small_run):
    changes = draw_changes(figures.changes(frame_of(small_run)))
    for axes in changes.axes:
        np.testing.assert_allclose(sum(bar.get_height() for bar in axes.patches), 200)  # 100 % of each role
    (axes,) = draw_symmetry(figures.symmetry(frame_of(small_run))).axes
    assert [bar.get_height() for bar in axes.patches] == [100, 0]


def test_the_same_run_gives_the_same_files(small_run, tmp_path):
    first, second = plot_run(small_run, tmp_path / "1", "svg"), plot_run(small_run, tmp_path / "2", "svg")
    assert [path.stem for path in first] == ["hull", "progress", "symmetry", "changes", "best"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
