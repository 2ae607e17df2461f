"""Pictures of verified crystals: phonon bands with their density of states, and powder patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from pymatgen.util.string import latexify

from model.verification.diffraction import RADIATION, STEP, profile, reflections
from model.verification.pattern_match import PatternMatch, PatternRanking
from search.reporting.plots import HEIGHT, STYLE, WIDTH
from search.studies.verify import Subject

SHOWN = 3  # single phases drawn below a measured pattern
HIGHEST = 90.0  # degrees, of calculated patterns


def draw_all(
    folder: Path, subjects: Sequence[Subject], records: Sequence[Mapping[str, Any]], *, radiation: str = RADIATION
) -> None:
    """Draw each crystal's pattern and phonons, and write the crystals that imaginary modes lead to as CIFs.

    Those of an earlier call are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in [path for kind in ("*-phonons.png", "*-pattern.png", "*-mode-*.cif") for path in folder.glob(kind)]:
        old.unlink()
    for subject, one in zip(subjects, records, strict=True):
        plot_pattern(subject, folder / f"{subject.name}-pattern.png", radiation)
        if one.get("bands"):
            plot_phonons(one, folder / f"{subject.name}-phonons.png")
        for count, cif in enumerate(one.get("cifs", ()), start=1):
            (folder / f"{subject.name}-mode-{count}.cif").write_text(cif, encoding="utf-8")


@plt.style.context(STYLE)
def plot_phonons(record: Mapping[str, Any], path: Path) -> None:
    """Bands and density of states of a record that has them; imaginary frequencies are below 0."""
    bands, (frequencies, states) = record["bands"], record["dos"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(1.4 * WIDTH, HEIGHT), layout="constrained", sharey=True, width_ratios=(3, 1)
    )
    for one in bands["frequencies"]:
        left.plot(bands["places"], one, color="tab:blue", linewidth=0.7)
    for tick in bands["ticks"]:
        left.axvline(tick, color="0.7", linewidth=0.5, zorder=0)
    left.set_xticks(bands["ticks"], [_greek(label) for label in bands["labels"]])
    left.set(xlim=(bands["places"][0], bands["places"][-1]), ylabel="frequency, THz")
    left.set_title(f"{latexify(record['formula'])}, {record['space_group']}")
    right.plot(states, frequencies, color="tab:blue", linewidth=0.8)
    right.set(xlabel="states per THz", xlim=(0, None))
    for axes in (left, right):
        axes.axhline(0, color="0.3", linewidth=0.6)
    _saved(figure, path)


def _greek(label: str) -> str:
    return label.replace("G", "Γ")


@plt.style.context(STYLE)
def plot_match(ranking: PatternRanking, subjects: Sequence[Subject], path: Path) -> None:
    """The measured pattern without background over the best phases, and over the best mixture if it is better."""
    shown = [*ranking.single[:SHOWN]]
    if ranking.pairs and ranking.pairs[0].similarity > ranking.single[0].similarity:
        shown.append(ranking.pairs[0])
    figure, rows = plt.subplots(
        len(shown), 1, figsize=(2 * WIDTH, 1.2 * len(shown) + 0.6), layout="constrained", sharex=True, squeeze=False
    )
    for axes, match in zip(rows[:, 0], shown, strict=True):
        axes.plot(ranking.grid, ranking.measured, color="0.2", linewidth=0.6, label="measured")
        for place, own in zip(match.crystals, match.calculated, strict=True):
            axes.plot(ranking.grid, -own, linewidth=0.7, label=latexify(subjects[place].crystal.formula))
        axes.set_title(match_name(match, subjects), fontsize=7, loc="left")
        axes.set_yticks([])
        axes.legend(loc="upper right")
    rows[-1, 0].set_xlabel("2θ, degrees")
    _saved(figure, path)


def match_name(match: PatternMatch, subjects: Sequence[Subject]) -> str:
    """Names of the phases of a match, with their shares if there are two, and the similarity."""
    names = [subjects[place].name for place in match.crystals]
    if len(names) > 1:
        names = [f"{share:.0%} {name}" for share, name in zip(match.shares, names, strict=True)]
    return f"{' + '.join(names)}, similarity {match.similarity:.3f}"


@plt.style.context(STYLE)
def plot_pattern(subject: Subject, path: Path, radiation: str = RADIATION) -> None:
    """The calculated powder pattern of a crystal."""
    peaks = reflections(subject.crystal, highest=HIGHEST, radiation=radiation)
    grid = np.arange(STEP, HIGHEST, STEP)
    curve = profile(peaks.angles, peaks.intensities, grid)
    figure, axes = plt.subplots(figsize=(1.4 * WIDTH, HEIGHT), layout="constrained")
    axes.plot(grid, curve / curve.max(), color="tab:blue", linewidth=0.7)
    axes.set(xlabel=f"2θ, degrees ({radiation})", ylabel="intensity", xlim=(5, HIGHEST), yticks=[])
    axes.set_title(f"{latexify(subject.crystal.formula)}, {subject.name}")
    _saved(figure, path)


def _saved(figure: Figure, path: Path) -> None:
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
