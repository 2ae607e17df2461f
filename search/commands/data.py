"""`hostguide data` as a person sees it."""

from __future__ import annotations

from pathlib import Path

from pymatgen.core import Element
from rich.console import Console
from rich.table import Table

from model.potentials.chgnet.potential import CHGNetPotential
from model.thermodynamics.reference import packaged_reference
from search.studies.training_data import Filters, filtered, judged, read_source, reasons, table, write


def make_training_data(
    console: Console, source: Path, out: Path, *, filters: Filters, val: float, test: float, seed: int
) -> None:
    """Read, filter, split and write; print what was dropped and why.

    Raises:
        ValueError: the source cannot be used, an option is impossible, or nothing is left.
    """
    unknown_elements = [symbol for symbol in filters.without if not Element.is_valid_symbol(symbol)]
    if unknown_elements:
        raise ValueError(f"--without: {', '.join(unknown_elements)} is no element; write for example Pu,U")
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(f"--val {val} and --test {test} are shares: val above 0, and their sum below 1")
    if out.suffix != ".parquet":
        raise ValueError(f"--out is a Parquet file, for example {out.with_suffix('.parquet')}; got {out}")
    entries = list(filtered(read_source(source), filters))
    unknown = sum(1 for entry in entries if not entry.problem and entry.e_above_hull is None)
    if unknown:
        console.print(f"CHGNet evaluates {unknown} crystals whose distance above the hull {source} does not say.")
    potential = CHGNetPotential() if unknown else None
    entries = list(judged(entries, potential, packaged_reference(), filters))
    frame = table(entries, val=val, test=test, seed=seed)
    if frame.empty:
        raise ValueError(f"nothing is left of {source}: {reasons(entries)}")
    dropped = write(frame, entries, out)
    counts = Table("dropped because", "crystals")
    for reason, count in reasons(entries):
        counts.add_row(reason, str(count))
    console.print(counts)
    splits = ", ".join(f"{name} {count}" for name, count in frame["split"].value_counts().items())
    console.print(f"{out}: {len(frame)} of {len(entries)} crystals ({splits}); reasons for the rest in {dropped}")
    if "val" not in set(frame["split"]):
        console.print("No formula fell into split val, which training needs: raise --val or change --seed.")
