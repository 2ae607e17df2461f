"""Plots of a run: that they show the data of the figures."""

import numpy as np

from model.thermodynamics.reference import packaged_reference
from model.thermodynamics.stability import Stability
from search.reporting.figure_data import changes_data, hull_data, progress_data, symmetry_data
from search.reporting.plots import draw_changes, draw_hull, draw_progress, draw_symmetry, plot_run
from search.storage.results import load_results


def frame_of(run):
    return load_results(run, structures=False)


def hull_of(run, system):
    return hull_data(frame_of(run), Stability(packaged_reference(), system))


def offsets(axes):
    """Points drawn as dots: label -> (n, 2)."""
    return {dots.get_label(): np.asarray(dots.get_offsets()) for dots in axes.collections}


def test_points_of_a_binary_hull_are_those_of_the_data(small_run):
    data = hull_of(small_run, "Li-Si")
    (axes,) = draw_hull(data).axes
    first, second = data.found
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [phase.energy for phase in data.stable])
    np.testing.assert_allclose(offsets(axes)["known, above hull"][:, 1], [phase.energy for phase in data.above])
    np.testing.assert_allclose(offsets(axes)["new"], [[0.5, first.energy]])
    np.testing.assert_allclose(offsets(axes)["from_host"], [[0.5, second.energy]])


def test_corners_of_the_triangle_are_the_elements(small_run):
    axes = draw_hull(hull_of(small_run, "Li-Si-P")).axes[0]
    at = {text.get_text(): text.xy for text in axes.texts}
    np.testing.assert_allclose(at["Li"], [0.5, np.sqrt(0.75)])  # the least electronegative on top
    np.testing.assert_allclose([at["Si"], at["P"]], [[0, 0], [1, 0]], atol=1e-12)
    middle = offsets(axes)["found"]
    np.testing.assert_allclose(middle, np.tile([0.25, np.sqrt(0.75) / 2], (2, 1)))  # LiSi: half way to Si


def test_curves_are_those_of_the_data(small_run):
    data = progress_data(frame_of(small_run))
    (axes,) = draw_progress(data).axes
    (line,), (curve,) = axes.lines, data.curves
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([curve.minutes, curve.e_d]))


def test_histograms_hold_all_candidates_and_bars_their_share(small_run):
    changes = draw_changes(changes_data(frame_of(small_run)))
    for axes in changes.axes:
        np.testing.assert_allclose(sum(bar.get_height() for bar in axes.patches), 200)  # 100 % of each role
    (axes,) = draw_symmetry(symmetry_data(frame_of(small_run))).axes
    assert [bar.get_height() for bar in axes.patches] == [100, 0]


def test_the_same_run_gives_the_same_files(small_run, tmp_path):
    first, second = plot_run(small_run, tmp_path / "1", "svg"), plot_run(small_run, tmp_path / "2", "svg")
    assert [path.stem for path in first] == ["hull", "progress", "symmetry", "changes", "best"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
