"""`hostguide data`: training data for a score model, from CIFs, an ASE database or a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from search.commands.common import JsonOption, console, print_json, require_elements


def data(
    source: Annotated[Path, typer.Argument(help="A .parquet file, an ASE .db file, or a folder of .cif files")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, the data.path of a training", dir_okay=False)],
    max_atoms: Annotated[int, typer.Option(min=2, help="Maximum number of atoms in a cell")] = 250,
    max_e_above_hull: Annotated[float, typer.Option(help="Maximum energy above hull, eV/atom")] = 0.1,
    without: Annotated[str, typer.Option(help="Drop crystals with any of these elements, for example Pu,U")] = "",
    val: Annotated[float, typer.Option(help="Fraction of the formulas for validation")] = 0.05,
    test: Annotated[float, typer.Option(help="Fraction of the formulas for testing")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make training data from crystals; print how many were dropped and why."""
    from model.potentials.catalog import DEFAULT, load_potential
    from model.thermodynamics.reference import packaged_reference
    from search.studies.training_data import Filters, filtered, judged, read_source, reasons, table, write

    unwanted = tuple(symbol.strip() for symbol in without.split(",") if symbol.strip())
    require_elements("--without", unwanted)
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"--val {val} and --test {test} must be fractions: val above 0, and their sum below 1")
    if out.suffix != ".parquet":
        raise ValueError(f"--out must be a Parquet file, for example {out.with_suffix('.parquet')}; got {out}")
    filters = Filters(max_atoms, max_e_above_hull, unwanted)
    entries = list(filtered(read_source(source), filters))
    unknown = sum(1 for entry in entries if not entry.problem and entry.e_above_hull is None)
    if unknown:
        console.print(f"{source} has no energy above hull for {unknown} crystals: evaluating them with {DEFAULT}.")
    potential = load_potential(DEFAULT) if unknown else None
    entries = list(judged(entries, potential, packaged_reference(DEFAULT), filters))
    frame = table(entries, val=val, test=test, seed=seed)
    if frame.empty:
        raise ValueError(f"no crystal of {source} was kept: {reasons(entries)}")
    dropped = write(frame, entries, out)
    by_split, why = frame["split"].value_counts().to_dict(), dict(reasons(entries))
    if as_json:
        about = {"file": str(out), "crystals": len(frame), "read": len(entries), "splits": by_split, "dropped": why}
        print_json("data", about)
    else:
        counts = Table("reason for dropping", "crystals")
        for reason, count in why.items():
            counts.add_row(reason, str(count))
        console.print(counts)
    splits = ", ".join(f"{name} {count}" for name, count in by_split.items())
    console.print(
        f"{out}: {len(frame)} of {len(entries)} crystals ({splits}); dropped crystals are listed in {dropped}"
    )
    if "val" not in set(frame["split"]):
        console.print("The split val is empty, but training needs it: raise --val or change --seed.")
