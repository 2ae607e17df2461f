"""`hostguide search`: run a search, show its progress, and list the best crystals at the end."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.commands.common import INTERRUPTED, console, counted, say_warnings
from search.commands.runs.results import show_best
from search.storage.paths import RunPath, beside, require_lasting, run_path

if TYPE_CHECKING:
    from search.config import SearchConfig


def search(
    config: Annotated[Path, typer.Argument(help="YAML file of the search, for example configs/li-si.yaml")],
    run: Annotated[
        str | None,
        typer.Option(help="Folder or address of the run (default: runs/<name>). An existing run is resumed."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto or ray://… (default: this machine)")
    ] = None,
) -> None:
    """Search a chemical system. Rerun the same command to resume a search that was stopped or killed."""
    from search.config_file import load_config
    from search.planning.frameworks import framework_files
    from search.planning.prepare import check_potential, load_judge_reference, load_reference
    from search.running.driver import run_search
    from search.running.progress import shown
    from search.running.statistics import summary_lines

    settings = load_config(config)
    if address is not None:
        settings = settings.model_copy(update={"resources": settings.resources.model_copy(update={"address": address})})
    folder = run_path(run or Path("runs") / settings.name)
    require_lasting(folder)
    console.print(f"Searching {'-'.join(settings.compositions.elements)}; results go to {folder}")
    say_warnings(*framework_files(settings.frameworks.files))
    check_potential(settings)
    with counted() as report:
        reference = load_reference(settings, folder, report=partial(report, "known phases"))
        judge_reference = load_judge_reference(settings, folder, report=partial(report, "known phases of the judge"))
    with shown(console, folder) as report:
        outcome = run_search(settings, folder, reference, report=report, judge_reference=judge_reference)
    for line in summary_lines(outcome.summary):
        console.print(line, soft_wrap=True)
    if not outcome.summary.finished:
        console.print(
            f"Stopped; {outcome.summary.candidates} candidates are stored. "
            f"Resume with: hostguide search {config} --run {shlex.quote(str(folder))}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)
    if outcome.reason:
        console.print(f"Stopped early: {outcome.reason}.")
    console.print(f"Finished: {outcome.summary.candidates} candidates in {outcome.summary.seconds / 60:.1f} minutes.")
    if settings.verification is not None:
        _verify(settings, folder)
    show_best(folder, top=15, cif=folder / "best" if isinstance(folder, Path) else None)


def _verify(config: SearchConfig, run: RunPath) -> None:
    """Verify the best crystals, as `hostguide verify` does."""
    from search.reporting.verification_plots import draw_all
    from search.studies.verify import run_subjects, verified, write_records

    settings, resources = config.verification, config.resources
    assert settings is not None
    subjects = run_subjects(run, config.models.potential, top=settings.top)
    console.print(f"Verifying the best {len(subjects)}.")
    records = verified(
        subjects, config.models.potential, settings, workers=resources.relax_actors, address=resources.address
    )
    write_records(run, records)
    draw_all(beside(run) / "verification", subjects, records)
