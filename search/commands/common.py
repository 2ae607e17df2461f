"""Shared by several commands: the console, exit codes, types of arguments, and checks of user input."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Column, Table

from model.potentials.catalog import CATALOG, find_entry
from search.storage.paths import is_run, run_path

if TYPE_CHECKING:
    from model.potentials.catalog import PotentialChoice
    from model.potentials.interface import Potential
    from search.config import SearchConfig

console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)

INCOMPLETE = 1  # the command finished, but failed for some crystals
BAD_INPUT = 2
INTERRUPTED = 130  # the exit code of shells after Ctrl-C

_began = time.monotonic()  # of the command

NAMED = 3  # crystals of which the same is said, named in the line
LINES = 20  # number of progress messages if there is no terminal
ROWS_SHOWN = 40  # maximum number of table rows on the terminal; the file contains all
Row = Mapping[str, Any]


class Warned(Protocol):
    """What was read from a file, and what to tell the user about it."""

    @property
    def name(self) -> str:
        """Unique among the files read."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences without a full stop."""


def potential_of(text: str) -> Any:
    """The potential that an option names, checked before a command starts.

    Args:
        text: a name of the catalogue, or a calculator as in a configuration: in braces, or in a YAML file.

    Returns:
        a `PotentialChoice` (typer reads this function's types, and that one is slow to import).

    Raises:
        ValueError: there is no such potential or file, or its content is not a calculator.
    """
    is_file = text.endswith((".yaml", ".yml"))
    if not is_file and not text.lstrip().startswith("{"):
        return find_entry(text).name
    if is_file and not Path(text).is_file():
        raise ValueError(f"{text} does not exist: give a YAML file with calculator, arguments and energies")
    import yaml
    from pydantic import ValidationError

    from model.potentials.calculators import CalculatorSettings

    try:
        content = yaml.safe_load(Path(text).read_text(encoding="utf-8") if is_file else text)
        return CalculatorSettings.model_validate(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{text} is not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"{text} is no calculator ({problems}); docs/judges.md shows one") from error


def potentials_of(texts: Sequence[str]) -> list[Any]:
    """`potential_of` for an option that may be given several times."""
    return [potential_of(text) for text in texts]


RunArgument = Annotated[str, typer.Argument(help="Folder of a run, or its address: s3://…, gs://…")]
QuestionArgument = Annotated[
    str,
    typer.Argument(
        help="YAML file of the search (configs/li-si.yaml), a chemical system (Li-Si) or compounds (Li2S-P2S5), a "
        "formula (Li5Si2), a host (a crystal file or mp-149), or the folder of a run"
    ),
]
GuestOption = Annotated[
    list[str] | None,
    typer.Option(help="Without YAML: element to take out and put back, or to put into the host"),
]
MaxAtomsOption = Annotated[
    int | None, typer.Option(min=1, help="Without YAML: maximum number of atoms in a cell (default: 8)")
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        help="Without YAML: potential that judges the low crystals, or none (default: 7net-l3i5 if its package is "
        "installed, for up to three elements and at least five minutes)"
    ),
]
ConfigArgument = Annotated[Path, typer.Argument(help="YAML file of a search")]
CrystalFiles = Annotated[
    list[Path],
    typer.Argument(help="CIF, POSCAR or extended XYZ files, with one or many crystals; known phases: mp-149"),
]
PotentialOption = Annotated[
    str,  # a `PotentialChoice` after the callback
    typer.Option(help=f"{', '.join(CATALOG)}, or a calculator as in docs/judges.md", callback=potential_of),
]
ReferenceOption = Annotated[
    Path | None, typer.Option(help="Table of competing phases, for E_d (default: the potential's packaged one)")
]
WeightsOption = Annotated[
    str | None, typer.Option(help="Score model: small, base or a .safetensors file (default: small)")
]
FormulaOption = Annotated[str | None, typer.Option(help="Only this reduced formula")]
FmaxOption = Annotated[float, typer.Option(help="Convergence threshold for forces and scaled stress, eV/Å")]
MinutesOption = Annotated[
    float | None,
    typer.Option(min=0, help="Stop after this many minutes, counted from the start of the command", show_default=False),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing results")]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Device for the computation")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads")]
SeedOption = Annotated[int, typer.Option(min=0)]


def _messages_to_stderr(wanted: bool) -> bool:
    console.stderr = wanted
    return wanted


JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON instead of tables, see `hostguide schema`; messages go to standard error",
        callback=_messages_to_stderr,
    ),
]


def print_json(command: str, content: Any) -> None:
    """Print what a command prints with a `JsonOption`, see `search.reporting.records`."""
    from search.reporting.records import json_text

    print(json_text(command, content))


def settings_of(
    what: str, guests: list[str], max_atoms: int | None, judge: str | None, minutes: float | None = None
) -> SearchConfig:
    """The configuration that a `QuestionArgument` means: in a file, that of a run, or one made for it and shown.

    Raises:
        ValueError: it cannot be understood, or its options do not go with it.
    """
    from search.config_file import check_config, load_config
    from search.questions import configuration, explained

    place = run_path(what)
    if is_run(place) or Path(what).suffix in (".yaml", ".yml"):
        if guests or max_atoms is not None or judge is not None:
            raise ValueError(f"--guest, --max-atoms and --judge are for a search without YAML: change them in {what}")
        return load_config(place / "config.yaml" if is_run(place) else place)
    content = configuration(what, guests=guests, max_atoms=max_atoms, minutes=minutes, judge=judge)
    settings = check_config(content, source=what)
    console.print(explained(content, f"{settings.name}.yaml"), soft_wrap=True)
    return settings


def use_threads(count: int = 1) -> None:
    """Set the number of CPU threads of PyTorch."""
    import torch

    torch.set_num_threads(count)


def load_potential(potential: PotentialChoice, device: str, threads: int) -> Potential:
    """The potential of a `PotentialOption` on a `DeviceOption`.

    Raises:
        ValueError: there is no such device, or the potential cannot be made.
    """
    from model.potentials.catalog import load_potential as load

    use_threads(threads)
    return load(potential, device=device_of(device))


def device_of(option: str) -> str:
    """The device of a `DeviceOption`; raises ValueError if there is none."""
    import torch

    from model.diffusion.checkpoint import default_device

    if option == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no CUDA device; omit the option to use the CPU")
    return default_device() if option == "auto" else option


@contextmanager
def counted(to: Console = console) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars, one for each first argument of (what, done, total); lines without a terminal."""
    with Progress(console=to, transient=True, disable=not to.is_terminal) as bar:
        tasks, said = dict[str, TaskID](), dict[str, int]()

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)
            line = done * LINES // max(total, 1)
            if not to.is_terminal and line != said.get(what):
                said[what] = line
                to.print(f"{what}: {done} of {total}", soft_wrap=True)

        yield report


def seconds_of(minutes: float | None) -> float:
    """What is left of a `MinutesOption`, in seconds: its time began with the command. Infinite if omitted."""
    return math.inf if minutes is None else max(0.0, 60 * minutes - (time.monotonic() - _began))


def begin() -> None:
    """Start the clock of `seconds_of`, and send output to where it belongs; called before every command."""
    global _began
    _began = time.monotonic()
    console.stderr = False


def require_elements(option: str, symbols: Iterable[str]) -> None:
    """Check the element symbols given to an option.

    Raises:
        ValueError: a symbol is not an element.
    """
    from ase.data import chemical_symbols

    for symbol in symbols:
        if symbol not in chemical_symbols[1:]:  # the first one is X, ASE's dummy atom
            raise ValueError(f"{option} {symbol!r} is not an element; use symbols such as Li")


def parse_share(option: str, text: str) -> tuple[int, int]:
    """Parse an option k/n, which selects the k-th of n parts.

    Raises:
        ValueError: it does not have this form, or k is not between 1 and n.
    """
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(f"{option} must be k/n with k from 1 to n, for example 1/4; got {text!r}")
    return int(match[1]), int(match[2])


def say_warnings(*read: Warned, to: Console = console) -> None:
    """Print what the user should know about how files were read."""
    say_of([(one.name, f"{text}.") for one in read for text in one.warnings], to)


def say_of(lines: Iterable[tuple[str, str]], to: Console = console) -> None:
    """Print texts, each after the names of the crystals that it is about; what is said of many is printed once."""
    names: dict[str, list[str]] = {}
    for name, text in lines:
        names.setdefault(text, []).append(name)
    for text, about in names.items():
        more = f" and {len(about) - NAMED} more" if len(about) > NAMED else ""
        to.print(f"{', '.join(about[:NAMED])}{more}: {text}", soft_wrap=True)


def number(value: float | None, form: str, missing: str = "") -> str:
    """A number for a table, or ``missing`` for None, NaN and infinity."""
    return missing if value is None or not math.isfinite(value) else format(value, form)


def e_d_cell(row: Row) -> str:
    """E_d of a row of `search.studies.crystal_stability`, in meV/atom."""
    return number(1e3 * row["e_d"], ".1f", "–")


def products_cell(row: Row) -> str:
    """What the crystal of such a row decomposes into, or why there is no E_d."""
    return str(row["products"] or row["e_d_missing"])


def crystal_table(title: str, columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> Table:
    """Table of the first `ROWS_SHOWN` crystals, whose caption says how many were left out.

    Args:
        title: of the table.
        columns: heading -> text of a row, for the columns after name and formula.
        rows: one per crystal.
    """
    more = f"and {len(rows) - ROWS_SHOWN} more in the file" if len(rows) > ROWS_SHOWN else None
    shown = rows[:ROWS_SHOWN]
    table = Table(Column("crystal", overflow="fold"), "formula", title=title, caption=more)
    cells = [[text(row) for row in shown] for text in columns.values()]
    for heading, column in zip(columns, cells, strict=True):
        longest = max(map(len, [*heading.split(), *(word for cell in column for word in cell.split())]))
        wraps = any(" " in cell for cell in column)
        table.add_column(heading, min_width=longest, width=None if wraps else longest)  # so that no word is cut
    for row, texts in zip(shown, zip(*cells, strict=True), strict=True):
        table.add_row(row["name"], row["formula"], *texts)
    return table
