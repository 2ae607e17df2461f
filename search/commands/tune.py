"""`hostguide tune`: optimise the settings of the samplers and of the relaxation for one system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.common import ConfigArgument, console
from search.storage.paths import beside, run_path

if TYPE_CHECKING:
    from model.settings import Settings
    from search.planning.tuning import Trial
    from search.storage.rows import Row


def tune(
    config: ConfigArgument,
    trials: Annotated[int, typer.Option(min=1, help="Batches of each kind to try")] = 40,
    run: Annotated[
        str | None,
        typer.Option(
            help="Folder or address for the batches (default: runs/tune-<name>). An existing study is resumed."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Configuration to write (default: <config>-tuned.yaml)")] = None,
) -> None:
    """Find good settings of the samplers for one system, and write a configuration with them.

    The fields listed under `tuning` in the configuration are tuned (default: fields of the samplers).
    """
    from model.diffusion.checkpoint import save_yaml
    from search.config_file import load_config
    from search.reporting.tuning_plots import plot_study
    from search.studies.tuning_search import tune as tune_settings

    before = load_config(config)
    folder = run_path(run or Path("runs") / f"tune-{before.name}")
    tuner, best, after = tune_settings(before, trials, folder, report=_report)
    for part, trial in best.items():
        console.print(f"{part}: {_described(trial, tuner.groups[part])}")
        for picture in plot_study(tuner.study(part), beside(folder) / "plots", part):
            console.print(str(picture), soft_wrap=True)
    written = out or config.with_name(f"{config.stem}-tuned.yaml")
    save_yaml(after.model_dump(mode="json"), written)
    console.print(f"Configuration with these settings: {written}", soft_wrap=True)


def _report(rows: list[Row]) -> None:
    from search.storage.rows import Status

    relaxed = sum(row.status == Status.RELAXED for row in rows)
    console.print(f"{rows[0].task}: {relaxed} of {len(rows)} relaxed, {rows[0].evaluations} evaluations")


def _described(trial: Trial, group: Settings) -> str:
    from search.config import changed
    from search.planning.tuning import COST, QUALITY

    values = ", ".join(f"{name} {getattr(changed(group, trial.values), name):.4g}" for name in trial.values)
    return f"{values} ({QUALITY} {trial.quality:.3f}, {COST} {trial.cost:.0f})"
