"""`hostguide verify`: what a scientist asks of a crystal before DFT or a synthesis, and one verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.potentials.catalog import DEFAULT, PotentialChoice
from search.commands.common import INCOMPLETE, PotentialOption, console, number, say_of, use_threads
from search.storage.paths import RunPath, beside, is_run, run_path

if TYPE_CHECKING:
    from model.verification.pattern_match import PatternRanking
    from search.studies.verify import Subject

PAIRS_SHOWN = 3  # best mixtures of two phases


def verify(
    source: Annotated[list[str], typer.Argument(help="A run, crystal files, or identifiers of known phases: mp-149")],
    top: Annotated[int, typer.Option(min=1, help="Run only: number of best crystals")] = 10,
    phonons: Annotated[
        bool, typer.Option("--phonons", help="Phonons, imaginary modes, elastic constants; up to a minute a crystal")
    ] = False,
    height: Annotated[float, typer.Option(help="Minimum height of the supercell for phonons, Å")] = 8.0,
    displacement: Annotated[float, typer.Option(help="Displacement of atoms for phonons, Å")] = 0.05,
    xrd: Annotated[
        Path | None, typer.Option(help="Measured powder pattern: columns of 2θ in degrees and intensity")
    ] = None,
    radiation: Annotated[str, typer.Option(help="Radiation of the pattern, for example CuKa, CuKa1, MoKa")] = "CuKa",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list with one object per crystal")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pictures and CIFs (default: RUN/verification or ./verification)", file_okay=False
        ),
    ] = None,
    potential: PotentialOption = DEFAULT,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes (default: one per core for phonons of many crystals)")
    ] = None,
) -> None:
    """Ask of crystals whether they are known, charge-balanced, a minimum, and match a pattern; and give a verdict.

    Crystals of files are relaxed first. Exits with 1 if a crystal cannot be verified.
    """
    from model.verification.diffraction import RADIATIONS
    from model.verification.settings import PhononSettings, VerifySettings
    from search.reporting.verification_plots import draw_all, plot_match
    from search.storage.pattern_files import read_pattern
    from search.studies.verify import add_similarity, plain, verified, write_records

    use_threads()
    if height <= 0 or displacement <= 0:
        raise ValueError(f"--height and --displacement must be positive, got {height:g} and {displacement:g}")
    if radiation not in RADIATIONS:
        raise ValueError(f"--radiation {radiation!r} is unknown; choose from {', '.join(RADIATIONS)}")
    pattern = None if xrd is None else read_pattern(xrd)
    places = [run_path(one) for one in source]
    run = places[0] if len(places) == 1 and is_run(places[0]) else None
    tell = Console(stderr=True, highlight=False, markup=False) if as_json else console
    subjects, own, left_out = _subjects(places, run, top, potential, tell)
    computed = PhononSettings(height=height, displacement=displacement) if phonons else None
    settings = VerifySettings(top=top, phonons=computed)
    with Progress(console=tell, transient=True) as bar:
        task = bar.add_task("verified", total=len(subjects))
        records = verified(subjects, own, settings, workers=workers, report=lambda: bar.advance(task))
    folder = out or (Path("verification") if run is None else beside(run) / "verification")
    folder.mkdir(parents=True, exist_ok=True)
    ranking = None
    if pattern is not None:
        from model.verification.pattern_match import rank_patterns

        ranking = rank_patterns([one.crystal for one in subjects], pattern, radiation=radiation)
        add_similarity(records, ranking)
    write_records(folder if run is None else run, records)
    draw_all(folder, subjects, records, radiation=radiation)
    if ranking is not None:
        plot_match(ranking, subjects, folder / "match.png")
    if as_json:
        print(json.dumps(plain(records), indent=2, ensure_ascii=False))
    else:
        _show(records, subjects, ranking)
        console.print(f"Pictures and CIFs: {folder}", soft_wrap=True)
    if left_out or any(one["problem"] for one in records):
        raise typer.Exit(INCOMPLETE)


def _subjects(
    places: Sequence[RunPath], run: RunPath | None, top: int, potential: PotentialChoice, tell: Console
) -> tuple[list[Subject], PotentialChoice, int]:
    """What is verified, the potential that goes with it, and how many crystals were left out."""
    from search.config_file import load_config
    from search.storage.crystal_files import read_files
    from search.studies.verify import file_subjects, run_subjects

    if run is not None:
        own = load_config(run / "config.yaml").models.potential
        return run_subjects(run, own, top=top), own, 0
    files = [place for place in places if isinstance(place, Path) and not is_run(place)]
    if len(files) < len(places):
        raise ValueError(f"give one run, or crystal files, not both or several runs: {', '.join(map(str, places))}")
    read = read_files(files)
    notes = [(one.name, f"{text}.") for one in read.crystals for text in one.warnings]
    notes += [(one.name, f"left out, it cannot be read: {one.problem}") for one in read.unreadable]
    subjects = file_subjects(read.crystals, potential, lambda *note: notes.append(note))
    say_of(notes, tell)
    if not subjects:
        raise ValueError("no crystal of these files can be relaxed")
    return subjects, potential, len(read.crystals) + len(read.unreadable) - len(subjects)


def _show(records: Sequence[dict[str, Any]], subjects: Sequence[Subject], ranking: PatternRanking | None) -> None:
    table = Table(title="Verdicts", title_justify="left")
    for name in ("crystal", "formula", "group", "E_d meV/atom", "lowest THz", "verdict"):
        table.add_column(name, justify="right" if name in ("E_d meV/atom", "lowest THz") else "left")
    for one in records:
        e_d, lowest = one.get("e_d"), one.get("lowest_frequency")
        table.add_row(
            one["name"],
            one["formula"],
            one.get("space_group", ""),
            number(None if e_d is None else 1e3 * e_d, "+.1f", "–"),
            number(lowest, ".2f", "–"),
            one["verdict"],
        )
    console.print(table)
    say_of((one["name"], one["problem"]) for one in records if one["problem"] and one["grade"] != "failed")
    reached = sum(one.get("ion_exchange", False) for one in records)
    new = [one for one in records if one.get("known") is None and one["grade"] != "failed"]
    console.print(
        f"{len(new)} of {len(records)} are new; {sum(not one['ion_exchange'] for one in new)} of these no ion exchange "
        f"of a known crystal gives."
        if new
        else f"None of {len(records)} is new; ion exchange gives {reached}."
    )
    if ranking is not None:
        _show_ranking(ranking, subjects)


def _show_ranking(ranking: PatternRanking, subjects: Sequence[Subject]) -> None:
    from search.reporting.verification_plots import match_name

    for title, matches in (("Best single phases", ranking.single), ("Best mixtures", ranking.pairs)):
        for count, match in enumerate(matches[:PAIRS_SHOWN], start=1):
            if count == 1:
                console.print(f"{title}:")
            formulas = " + ".join(subjects[place].crystal.formula for place in match.crystals)
            console.print(f"  {count}. {formulas}: {match_name(match, subjects)}", soft_wrap=True)
