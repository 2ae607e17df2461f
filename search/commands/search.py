"""`hostguide search`: run a search, show its progress, and list the best crystals at the end."""

from __future__ import annotations

import math
import shlex
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.commands.common import (
    INTERRUPTED,
    GuestOption,
    JsonOption,
    JudgeOption,
    MaxAtomsOption,
    MinutesOption,
    QuestionArgument,
    console,
    counted,
    print_json,
    say_warnings,
    seconds_of,
    settings_of,
)
from search.commands.runs.results import best_of, show_best
from search.storage.paths import RunPath, beside, is_run, require_lasting, run_path

if TYPE_CHECKING:
    from search.config import SearchConfig
    from search.running.driver import SearchOutcome

SHOWN = 15  # crystals in the table at the end
CLOSING = 5.0  # s that a search needs to stop its actors and to show its results; part of --minutes


def search(
    what: QuestionArgument,
    run: Annotated[
        str | None,
        typer.Option(help="Folder or address of the run (default: runs/<name>). An existing run is resumed."),
    ] = None,
    guest: GuestOption = None,
    max_atoms: MaxAtomsOption = None,
    judge: JudgeOption = None,
    minutes: MinutesOption = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto or ray://… (default: this machine)")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search a chemical system. Rerun the same command to resume a search that was stopped or killed."""
    from search.planning.frameworks import framework_files
    from search.planning.prepare import check_potential, load_judge_reference, load_reference
    from search.running.driver import run_search
    from search.running.progress import shown

    settings = settings_of(what, guest or [], max_atoms, judge, minutes)
    if address is not None:
        settings = settings.model_copy(update={"resources": settings.resources.model_copy(update={"address": address})})
    folder = run_path(run or (what if is_run(run_path(what)) else Path("runs") / settings.name))
    require_lasting(folder)
    console.print(f"Searching {'-'.join(settings.compositions.elements)}; results go to {folder}")
    say_warnings(*framework_files(settings.frameworks.files))
    check_potential(settings)
    with counted() as report:
        reference = load_reference(settings, folder, report=partial(report, "known phases"))
        judge_reference = load_judge_reference(settings, folder, report=partial(report, "known phases of the judge"))
    left = seconds_of(minutes)
    until = time.monotonic() + max(0.0, left - CLOSING) if math.isfinite(left) else math.inf
    with shown(console, folder) as report:
        outcome = run_search(settings, folder, reference, report=report, judge_reference=judge_reference, until=until)
    _say_end(outcome, folder, minutes)
    cif = folder / "best" if isinstance(folder, Path) else None
    stopped = not (outcome.summary.finished or outcome.out_of_time)
    if settings.verification is not None and outcome.summary.finished:
        _verify(settings, folder)
    if as_json:
        best = best_of(folder, cif=None if stopped else cif, top=SHOWN) if outcome.summary.candidates else None
        _print_json(outcome, folder, [] if best is None else best.to_dict("records"), minutes)
    elif not stopped and outcome.summary.candidates:
        show_best(best_of(folder, cif=cif, top=SHOWN), folder, cif=cif)
        if settings.judge is None:
            name = settings.models.potential_entry.name
            console.print(
                f"E_d is by {name} alone, and a search finds its errors too. A second potential: hostguide judge "
                f"{shlex.quote(str(folder))} --with 7net-l3i5, or a judge in the search (docs/judges.md).",
                soft_wrap=True,
            )
    if stopped:
        raise typer.Exit(INTERRUPTED)


def _say_end(outcome: SearchOutcome, folder: RunPath, minutes: float | None) -> None:
    from search.running.statistics import summary_lines

    summary = outcome.summary
    for line in summary_lines(summary):
        console.print(line, soft_wrap=True)
    if summary.finished:
        if outcome.reason:
            console.print(f"Stopped early: {outcome.reason}.")
        console.print(f"Finished: {summary.candidates} candidates in {summary.seconds / 60:.1f} minutes.")
        return
    ended = f"Stopped after {minutes:g} minutes" if outcome.out_of_time else "Stopped"
    console.print(
        f"{ended}; {summary.candidates} candidates are stored. "
        f"Resume with: hostguide search {shlex.quote(str(folder))}",
        soft_wrap=True,
    )


def _print_json(outcome: SearchOutcome, folder: RunPath, best: list[dict[str, Any]], minutes: float | None) -> None:
    summary = outcome.summary
    reason = f"{minutes:g} minutes are over" if outcome.out_of_time else outcome.reason
    content = {"run": str(folder), "finished": summary.finished, "reason": reason, "candidates": summary.candidates}
    print_json("search", {**content, "best": best})


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
