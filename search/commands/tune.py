"""`hostguide tune`: optimise the settings of the samplers and of the relaxation for one system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.common import ConfigArgument, console
from search.storage.paths import beside, require_lasting, run_path

if TYPE_CHECKING:
    from model.settings import Settings
    from search.planning.tuning import Trial


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
    from search.planning.campaign import read_trials
    from search.planning.prepare import load_reference, same_search, write_run_metadata
    from search.planning.tuning import chosen
    from search.reporting.tuning_plots import plot_study
    from search.running.pipeline import load_stages, search_here
    from search.storage.results import ResultStore
    from search.storage.rows import Row, Status
    from search.studies.tuning_search import tuning_search, with_settings

    wanted = load_config(config)
    folder = run_path(run or Path("runs") / f"tune-{wanted.name}")
    require_lasting(folder)
    settings = tuning_search(wanted, trials)
    reference = load_reference(settings)
    folder.mkdir(parents=True, exist_ok=True)
    same_search(folder, settings, reference)
    write_run_metadata(folder, settings, reference)
    rows: list[Row] = []
    for made in search_here(settings, reference, ResultStore(folder), load_stages(settings, reference)):
        rows += made
        relaxed = sum(row.status == Status.RELAXED for row in made)
        console.print(f"{made[0].task}: {relaxed} of {len(made)} relaxed, {made[0].evaluations} evaluations")
    found = read_trials(settings, rows)
    best = {
        part: chosen(found.trials[part], ranges)
        for part, ranges in found.ranges.items()
        if ranges and found.trials[part]
    }
    for part, trial in best.items():
        console.print(f"{part}: {_described(trial, found.groups[part])}")
        for picture in plot_study(found.study(part), beside(folder) / "plots", part):
            console.print(str(picture), soft_wrap=True)
    written = out or config.with_name(f"{config.stem}-tuned.yaml")
    save_yaml(with_settings(wanted, best).model_dump(mode="json"), written)
    console.print(f"Configuration with these settings: {written}", soft_wrap=True)


def _described(trial: Trial, group: Settings) -> str:
    from search.config import changed
    from search.planning.tuning import COST, QUALITY

    values = ", ".join(f"{name} {getattr(changed(group, trial.values), name):.4g}" for name in trial.values)
    return f"{values} ({QUALITY} {trial.quality:.3f}, {COST} {trial.cost:.0f})"
