"""The command line. Each command checks its input before any work starts; errors say what to do, and exit with 2."""

from __future__ import annotations

import math
import shlex
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from search.commands.dft import dft_app
from search.storage.paths import RunPath, beside, is_run, require_lasting, run_path

app = typer.Typer(
    name="hostguide",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
reference_app = typer.Typer(
    help="The competing phases that decomposition energies are measured against.", no_args_is_help=True
)
app.add_typer(reference_app, name="reference")
benchmark_app = typer.Typer(help="Measure how good the score model and its samplers are.", no_args_is_help=True)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(dft_app, name="dft")
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)
INTERRUPTED = 130
PotentialName = Literal["chgnet-0.3.0", "chgnet-r2scan"]
OptimizerName = Literal["fire", "lbfgs"]
CellName = Literal["full", "hydrostatic", "fixed_volume", "fixed"]
RunArgument = Annotated[str, typer.Argument(help="Folder of a run, or its address: s3://…, gs://…")]
DeviceName = Literal["auto", "cpu", "cuda"]


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(version("hostguide"))
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and end", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Find where guest atoms sit in a host crystal, and which crystals of a chemical system are stable."""


@app.command()
def search(
    config: Annotated[Path, typer.Argument(help="YAML file of the search, for example configs/li-si.yaml")],
    run: Annotated[
        str | None,
        typer.Option(help="Folder or address of the run; runs/<name> when left out. One that exists is resumed."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto, or ray://…; this machine when left out")
    ] = None,
) -> None:
    """Search a chemical system. The same command resumes a search that was stopped or killed."""
    from search.config import load_config
    from search.planning.prepare import load_reference
    from search.running.driver import run_search
    from search.running.progress import shown
    from search.running.statistics import summary_lines

    settings = load_config(config)
    if address is not None:
        settings = settings.model_copy(update={"resources": settings.resources.model_copy(update={"address": address})})
    folder = run_path(run or Path("runs") / settings.name)
    require_lasting(folder)
    console.print(f"Searching {'-'.join(settings.compositions.elements)}; results go to {folder}")
    with shown(console, folder) as report:
        outcome = run_search(settings, folder, load_reference(settings), report=report)
    for line in summary_lines(outcome.summary):
        console.print(line, soft_wrap=True)
    if not outcome.finished:
        console.print(
            f"Stopped; {outcome.candidates} candidates are stored. "
            f"Resume with: hostguide search {config} --run {shlex.quote(str(folder))}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)
    if outcome.reason:
        console.print(f"Enough: {outcome.reason}.")
    console.print(f"Finished: {outcome.candidates} candidates in {outcome.seconds / 60:.1f} minutes.")
    _show_results(folder, top=15, cif=folder / "best" if isinstance(folder, Path) else None)


@app.command()
def results(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="How many crystals to show")] = 20,
    formula: Annotated[str | None, typer.Option(help="Only this reduced formula")] = None,
    stage: Annotated[str | None, typer.Option(help="Only `generated` or `inpainted`")] = None,
    all_candidates: Annotated[bool, typer.Option("--all", help="Repeats of the same crystal too")] = False,
    cif: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the CIFs; RUN/best if none, and NAME/best here for a run in a store", file_okay=False
        ),
    ] = None,
) -> None:
    """Show the best crystals of a run and write them as CIF files."""
    if stage not in (None, "generated", "inpainted"):
        raise ValueError(f"--stage must be generated or inpainted, got {stage!r}")
    place = run_path(run)
    folder = cif or beside(place) / "best"
    _show_results(place, top=top, formula=formula, stage=stage, distinct=not all_candidates, cif=folder)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder of the files", file_okay=False)],
    kind: Annotated[str, typer.Option("--format", help="cif, poscar, res, extxyz, ase-db or optimade-json")] = "cif",
    e_d_below: Annotated[float | None, typer.Option("--e-d-below", help="Largest E_d in eV/atom")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many crystals at most")] = 1_000_000,
    formula: Annotated[str | None, typer.Option(help="Only this reduced formula")] = None,
    distinct: Annotated[bool, typer.Option("--distinct/--all", help="Equal crystals once, or all of them")] = True,
) -> None:
    """Write the crystals of a run, those of lowest E_d first, for other tools."""
    from search.reporting.export import export as write_files
    from search.storage.ranking import rank
    from search.storage.results import load_results

    frame = load_results(run, structures=False)
    best = rank(frame, top=top, formula=formula, distinct=distinct, e_d_below=e_d_below)
    paths = write_files(best, kind, out)
    console.print(f"{len(best)} crystals in {paths[0] if len(paths) == 1 else out}", soft_wrap=True)


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="HTML file; RUN/report.html when left out", dir_okay=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Serve it on this machine while the search runs")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --watch; 0 takes any that is free")] = 8365,
) -> None:
    """One HTML page about a run: hull, progress, symmetry, the best crystals in 3D. It needs no network."""
    from search.reporting.report import build_report, serve

    place = run_path(run)
    if watch:
        server = serve(place, port)
        console.print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)")
        server.serve_forever()
    path, page = out or beside(place) / "report.html", build_report(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    console.print(str(path), soft_wrap=True)


@app.command()
def plot(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; RUN/plots when left out", file_okay=False)
    ] = None,
    kind: Annotated[str, typer.Option("--format", help="png, svg or pdf")] = "png",
) -> None:
    """Draw hull, progress, symmetry, changes on relaxation and the best crystal, each one journal column wide."""
    from search.reporting.plots import plot_run

    place = run_path(run)
    for path in plot_run(place, out or beside(place) / "plots", kind):  # type: ignore[arg-type]
        console.print(str(path), soft_wrap=True)


@app.command()
def inpaint(
    host: Annotated[Path, typer.Argument(help="Host crystal: CIF, POSCAR or anything pymatgen reads")],
    guest: Annotated[list[str] | None, typer.Option(help="Guest element; may be given several times")] = None,
    count: Annotated[list[int] | None, typer.Option(help="Atoms of each guest in the cell, in the same order")] = None,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="Cells along a, b and c to work in")] = (1, 1, 1),
    region: Annotated[
        str | None,
        typer.Option(help="LOW:HIGH, fractions of c: the host's atoms between them are placed anew, with the guests"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Arrangements to try")] = 8,
    refine: Annotated[
        int, typer.Option(min=0, help="Rounds in which guests of the best arrangements are placed again")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fix_host: Annotated[
        bool, typer.Option("--fix-host", help="Relax the guests only; host and cell stay as given")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Score model: small, base or a .safetensors; small when left out")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the CIFs; <host>-<guests> when left out", file_okay=False)
    ] = None,
) -> None:
    """Put guest atoms into one host, relax and rank by energy. Without guests: order its partially occupied sites."""
    from search.commands.inpaint import inpaint_host, order_host

    guest, count = guest or [], count or []
    if len(guest) != len(count):
        raise ValueError(
            f"--guest was given {len(guest)} times and --count {len(count)} times; each guest needs its count"
        )
    repeated = sorted({element for element in guest if guest.count(element) > 1})
    if repeated:
        raise ValueError(
            f"--guest {', '.join(repeated)} was given more than once; give each guest once, with its count"
        )
    if not guest and region is None:
        if refine:
            raise ValueError(f"--refine {refine} places guests again: say which with --guest and --count, or --region")
        folder = out or Path(f"{host.stem}-ordered")
        order_host(console, host, samples=samples, seed=seed, fix_host=fix_host, out=folder, supercell=supercell)
        return
    guests = dict(zip(guest, count, strict=True))
    folder = out or Path(f"{host.stem}-{''.join(f'{element}{n}' for element, n in guests.items()) or 'region'}")
    inpaint_host(
        console,
        host,
        guests,
        samples=samples,
        seed=seed,
        fix_host=fix_host,
        weights=weights,
        out=folder,
        supercell=supercell,
        region=region,
        rounds=refine,
    )


@app.command(name="relax")
def relax_command(
    files: Annotated[list[Path], typer.Argument(help="CIF, POSCAR or extended XYZ files, with one or many crystals")],
    out: Annotated[Path, typer.Option(help="Folder for CIFs and summary.csv, or one .extxyz file")] = Path("relaxed"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there")] = False,
    potential: Annotated[PotentialName, typer.Option(help="GGA+U (0.3.0) or r2SCAN weights")] = "chgnet-0.3.0",
    optimizer: Annotated[OptimizerName, typer.Option(help="lbfgs is faster, fire is what the papers use")] = "lbfgs",
    fmax: Annotated[float, typer.Option(help="Converged below this force and scaled stress, eV/Å")] = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="At most so many steps a crystal")] = 500,
    cell: Annotated[
        CellName | None,
        typer.Option(help="What of the cell may change; full when left out, fixed with --free", show_default=False),
    ] = None,
    pressure: Annotated[float, typer.Option(help="External pressure, GPa")] = 0.0,
    free: Annotated[
        list[str] | None, typer.Option(help="Only this element moves; may be given several times", show_default=False)
    ] = None,
    keep_symmetry: Annotated[
        bool, typer.Option("--keep-symmetry", help="Hold each crystal on the space group it has at the start")
    ] = False,
    symprec: Annotated[float, typer.Option(help="Tolerance of that space group, Å")] = 0.01,
    batch: Annotated[int, typer.Option(min=1, help="Crystals that relax together; raise it on a GPU")] = 16,
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time", show_default=False)] = None,
    device: Annotated[DeviceName, typer.Option(help="Where to compute")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
) -> None:
    """Relax crystals; exits with 1 if one of them did not converge."""
    from model.relaxation.relax import RelaxSettings
    from search.commands.relax import relax_files

    if fmax <= 0 or symprec <= 0:
        raise ValueError(f"--fmax and --symprec must be above 0, got {fmax} and {symprec}")
    settings = RelaxSettings(
        optimizer=optimizer,
        fmax=fmax,
        max_steps=steps,
        cell=cell or ("fixed" if free else "full"),
        pressure=pressure,
        keep_symmetry=keep_symmetry,
        symprec=symprec,
    )
    seconds = math.inf if minutes is None else 60 * minutes
    fine = relax_files(
        console,
        files,
        settings,
        potential=potential,
        free=free or (),
        out=out,
        overwrite=overwrite,
        batch=batch,
        max_seconds=seconds,
        device=device,
        threads=threads,
    )
    if not fine:
        raise typer.Exit(1)


@app.command(name="evaluate")
def evaluate_command(
    files: Annotated[list[Path], typer.Argument(help="CIF, POSCAR or extended XYZ files, with one or many crystals")],
    out: Annotated[
        Path | None, typer.Option(help="File for the results: .csv, or .extxyz with forces and stress")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are already there")] = False,
    potential: Annotated[PotentialName, typer.Option(help="GGA+U (0.3.0) or r2SCAN weights")] = "chgnet-0.3.0",
    device: Annotated[DeviceName, typer.Option(help="Where to compute")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
) -> None:
    """Energy, forces, stress and moments of crystals as they are; exits with 1 if one has no answer."""
    from search.commands.relax import evaluate_files

    fine = evaluate_files(
        console, files, potential=potential, out=out, overwrite=overwrite, device=device, threads=threads
    )
    if not fine:
        raise typer.Exit(1)


@app.command()
def analyse(
    source: Annotated[str, typer.Argument(help="Folder or address of a run, or a crystal file")],
    guest: Annotated[str | None, typer.Option(help="Element whose ways through the crystal are looked for")] = None,
    host: Annotated[str | None, typer.Option(help="Of a run: formula of the host, for a voltage curve")] = None,
    framework: Annotated[
        str | None, typer.Option(help="Of a run: one of its frameworks, as it takes up the guest, empty to full")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Known phases to compare with: crystal files, or Parquet of structures")
    ] = None,
    barriers: Annotated[bool, typer.Option("--barriers", help="Barriers of the hops by CHGNet; minutes")] = False,
    single: Annotated[
        bool, typer.Option("--single", help="Barriers of a lone guest; else of a vacancy among guests")
    ] = False,
    height: Annotated[float, typer.Option(help="Least height in Å of the supercell for a barrier")] = 8.0,
    equal_sites: Annotated[
        bool, typer.Option("--equal-sites", help="Guests may sit wherever the host's symmetry takes their sites")
    ] = False,
    max_length: Annotated[float, typer.Option(help="Longest hop in Å")] = 4.5,
    top: Annotated[int, typer.Option(min=1, help="Of a run: how many of the best crystals")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Folder of tables and pictures; <source>-analysis if none", file_okay=False)
    ] = None,
) -> None:
    """Coordination, radial distribution functions, voids, ways of a guest, voltages."""
    from model.analysis.migration import BarrierSettings
    from search.commands.analyse import analyse as analyse_source

    if max_length <= 0 or height <= 0:
        raise ValueError(f"--max-length and --height must be positive, got {max_length} and {height}")
    place = run_path(source)
    folder = out or (beside(place) / "analysis" if is_run(place) else Path(f"{place.stem}-analysis"))
    analyse_source(
        console,
        place,
        guest=guest,
        host=host,
        framework=framework,
        against=against or [],
        barriers=BarrierSettings(min_length=height, vacancy=not single) if barriers else None,
        equal_sites=equal_sites,
        max_length=max_length,
        top=top,
        out=folder,
    )


@app.command("second-opinion")
def second_opinion(
    run: RunArgument,
    top: Annotated[int, typer.Option(min=1, help="How many crystals to judge again")] = 20,
    structures: Annotated[
        Path | None, typer.Option(help="Parquet of structures to compute competing phases from; packaged table if not")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Difference in eV/atom beyond which the potentials disagree")] = 0.03,
) -> None:
    """Judge the best crystals of a run again, with CHGNet's r2SCAN model."""
    from search.commands.second_opinion import give_second_opinion

    give_second_opinion(console, run_path(run), top=top, structures=structures, tolerance=tolerance)


@app.command()
def validate(config: Annotated[Path, typer.Argument(help="YAML file of a search")]) -> None:
    """Say what a search will do and roughly how long it takes, without doing it."""
    from search.commands.validate import describe
    from search.config import load_config

    for line in describe(load_config(config)):
        console.print(line)


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="YAML file of a search")],
    trials: Annotated[int, typer.Option(min=1, help="Batches of each kind to try")] = 40,
    run: Annotated[
        str | None,
        typer.Option(help="Folder or address of the batches; runs/tune-<name> when left out. One that exists goes on."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Configuration to write; <config>-tuned.yaml when left out")] = None,
) -> None:
    """Find good settings of the samplers for one system; writes a configuration."""
    from search.commands.tune import tune as tuned
    from search.config import load_config

    folder = run_path(run or Path("runs") / f"tune-{load_config(config).name}")
    require_lasting(folder)
    tuned(console, config, trials=trials, run=folder, out=out or config.with_name(f"{config.stem}-tuned.yaml"))


@app.command()
def data(
    source: Annotated[Path, typer.Argument(help="A .parquet file, an ASE .db file, or a folder of .cif files")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, for data.path of a training", dir_okay=False)],
    max_atoms: Annotated[int, typer.Option(min=2, help="Drop larger cells")] = 250,
    max_e_above_hull: Annotated[float, typer.Option(help="Drop what lies higher, eV/atom")] = 0.1,
    without: Annotated[str, typer.Option(help="Drop what holds one of these elements, for example Pu,U")] = "",
    val: Annotated[float, typer.Option(help="Share of the formulas for validation")] = 0.05,
    test: Annotated[float, typer.Option(help="Share of the formulas for tests")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides the splits")] = 0,
) -> None:
    """Make training data from crystals; says what was dropped and why."""
    from search.commands.data import make_training_data
    from search.studies.training_data import Filters

    unwanted = tuple(symbol.strip() for symbol in without.split(",") if symbol.strip())
    make_training_data(
        console, source, out, filters=Filters(max_atoms, max_e_above_hull, unwanted), val=val, test=test, seed=seed
    )


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file, for example configs/train/small.yaml")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; runs/train-<config> when left out. One that exists is resumed."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this time; the same command goes on", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share every batch, by Ray, one GPU each")] = 1,
) -> None:
    """Train a score model; resumes where the folder left off. Draws curves.png beside the log."""
    from search.commands.train import train_model

    train_model(
        console,
        config,
        out or Path("runs") / f"train-{config.stem}",
        device=device,
        threads=threads,
        minutes=minutes,
        workers=workers,
    )


@reference_app.command("show")
def reference_show(system: Annotated[str, typer.Argument(help="Chemical system, for example Li-Si")]) -> None:
    """List the phases of a system in the packaged reference, stable ones first."""
    from search.reporting.tables import reference_table

    console.print(reference_table(system))


@reference_app.command("build")
def reference_build(
    energies: Annotated[
        Path, typer.Argument(help="Parquet of phases: material_id, formula, n_atoms, energy_per_atom, e_above_hull")
    ],
    out: Annotated[Path, typer.Argument(help="Reference table to write (.parquet)")],
    structures: Annotated[Path | None, typer.Option(help="Parquet of structures, for volumes")] = None,
    relaxed: Annotated[
        list[Path] | None,
        typer.Option(
            help="Parquet of relaxed energies (material_id, energy_per_atom) that replace single points; "
            "may be given several times, the first that knows a phase goes"
        ),
    ] = None,
    potential: Annotated[str, typer.Option(help="What computed the energies")] = "CHGNet 0.3.0",
    name: Annotated[str, typer.Option(help="Name of the table, stored with every result")] = "own phases",
    source: Annotated[
        str, typer.Option(help="Whom to credit for the phases, and their licence; stored in the table")
    ] = "own phases",
    version: Annotated[str, typer.Option(help="Version of the phases' database; stored in the table")] = "unknown",
) -> None:
    """Build a reference table for hulls from phases with energies."""
    from model.thermodynamics.reference import build_reference_table, load_table

    build_reference_table(
        energies,
        out,
        structures_parquet=structures,
        relaxed_parquet=relaxed or (),
        potential=potential,
        name=name,
        source=source,
        version=version,
    )
    console.print(f"{len(load_table(out))} phases in {out} ({out.stat().st_size / 1e6:.1f} MB)")


@reference_app.command("relax")
def reference_relax(
    structures: Annotated[Path, typer.Option(help="Parquet of phases with structures; docs/reference.md says how")],
    out: Annotated[Path, typer.Option(help="Folder of the results; one that exists is continued", file_okay=False)],
    within: Annotated[float, typer.Option(min=0, help="eV/atom above the hull")] = 0.02,
    first: Annotated[str, typer.Option(help="Chemical systems to begin with, for example Li-Si,Zn-P-S")] = "",
    max_atoms: Annotated[int, typer.Option(min=1, help="Leave out larger cells")] = 250,
    potential: Annotated[PotentialName, typer.Option(help="GGA+U (0.3.0) or r2SCAN weights")] = "chgnet-0.3.0",
    fmax: Annotated[float, typer.Option(help="Converged below this force and scaled stress, eV/Å")] = 0.05,
    share: Annotated[str, typer.Option(help="k/n: do the k-th of n shares, one process each")] = "1/1",
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop after this time", show_default=False)] = None,
    known: Annotated[
        Path | None, typer.Option(help="Parquet of relaxed energies, whose phases are left out", show_default=False)
    ] = None,
) -> None:
    """Relax all phases near the hull, in parts: stop it any time, the same command goes on."""
    from search.commands.reference import relax_reference

    seconds = math.inf if minutes is None else 60 * minutes
    relax_reference(
        console,
        structures,
        out,
        within=within,
        first=first,
        max_atoms=max_atoms,
        potential=potential,
        fmax=fmax,
        share=share,
        max_seconds=seconds,
        known=known,
    )


@benchmark_app.command("reconstruct")
def benchmark_reconstruct(
    data: Annotated[
        Path, typer.Option(help="Parquet of crystals with the columns split and guest, see docs/training.md")
    ],
    split: Annotated[str, typer.Option(help="Split whose crystals are taken")] = "test",
    guest: Annotated[str | None, typer.Option(help="Only this guest element")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many crystals a guest element")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated: ancestral, symmetric+heun:steps=12, random, ...; see docs/training.md"),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Attempts a crystal")] = 4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rank: Annotated[bool, typer.Option(help="Rank the attempts by CHGNet, as they are and with guests relaxed")] = True,
    residual: Annotated[bool, typer.Option(help="Rank them by the score model's residual as well")] = False,
    stability: Annotated[bool, typer.Option(help="Relax all atoms of each first attempt: F_max and ΔE")] = False,
    train: Annotated[
        Path | None, typer.Option(help="Training crystals that say which hosts are new; the data when left out")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Score model: small, base or a .safetensors; small when left out")
    ] = None,
    shard: Annotated[str, typer.Option(help="k/n: do the k-th of n shares, one process each, same --json")] = "1/1",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where the figures go; cases already in its .jsonl are not run again")
    ] = None,
) -> None:
    """Take all guests out of known crystals, put them back, and count how often the crystal returns."""
    from search.commands.benchmark import run_benchmark

    run_benchmark(
        console,
        data,
        split=split,
        guest=guest,
        limit=limit,
        methods=method or ["ancestral"],
        samples=samples,
        seed=seed,
        rank=rank,
        residual=residual,
        stability=stability,
        train=train,
        weights=weights,
        shard=shard,
        json_file=json_file,
    )


def _show_results(
    run: RunPath,
    *,
    cif: Path | None,
    top: int,
    formula: str | None = None,
    stage: str | None = None,
    distinct: bool = True,
) -> None:
    from search.reporting.tables import results_table
    from search.storage.cif import write_cifs
    from search.storage.ranking import rank
    from search.storage.results import load_results

    best = rank(load_results(run), top=top, formula=formula, stage=stage, distinct=distinct)
    if best.empty:
        console.print("No relaxed crystal matches.")
        return
    console.print(results_table(best))
    if cif is None:
        console.print(f"CIFs of these crystals: hostguide results {shlex.quote(str(run))}", soft_wrap=True)
        return
    write_cifs(best, cif)
    console.print(f"CIFs of these {len(best)} crystals: {cif}", soft_wrap=True)


def main() -> None:
    """Entry point: of errors that a person can do something about, the message is all they see."""
    warnings.filterwarnings("ignore")  # third-party chatter; our own messages go through the console
    began = time.monotonic()
    try:
        app()
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        Console(stderr=True, highlight=False).print(
            f"hostguide: {error}", style="bold red", markup=False, soft_wrap=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print(f"Stopped after {time.monotonic() - began:.0f} s.")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
