"""The tools that `hostguide mcp` offers to agents: commands, with the same JSON as on the command line.

Every tool runs a command with `--json` as a process of its own. Files may be read anywhere; written is only into one
folder, and nothing without one.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from search.reporting.records import (
    RECORDS,
    Evaluated,
    Filled,
    FoundCrystal,
    Phase,
    Plan,
    Progress,
    Relaxed,
    Verified,
)
from search.reporting.study_records import Judged
from search.storage.paths import is_run, run_path

if TYPE_CHECKING:
    from mcp.server import MCPServer

PROGRAM = [sys.executable, "-c", "from hostguide_start import main; main()"]
HOME = Path(__file__).resolve().parents[1]
FAILED_FOR_SOME = 1  # the exit code of commands that have results, but not for all crystals
LONGEST = 24 * 60.0  # minutes of a search
INSTRUCTIONS = """Finds where guest atoms sit in host crystals, and which crystals of a chemical system are stable.
Energies are in eV/atom, of a machine-learned potential whose error is about 0.03 eV/atom: a low E_d is a reason to look
closer, not a proof of stability. Begin with `validate` (what would a search do, how long), then `search`, `status`
until it has ended, and `results`. `evaluate` and `relax` take crystal files; `inpaint` puts guests into one host.
`verify` gives a verdict on crystals, and `judge` asks other potentials."""


class Started(BaseModel):
    """A search that was started."""

    run: str = Field(description="its folder, for status and results")
    minutes: float = Field(description="after which it stops by itself")


class Tools:
    """The tools; those that write do so in ``folder``.

    Args:
        folder: in which commands run and may write; None: nothing is written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder.resolve()

    def validate(self, what: str, guests: Sequence[str] = (), max_atoms: int | None = None) -> Plan:
        """What a search would do, and how long it takes on one core.

        Args:
            what: a chemical system (Li-Si), a formula (Li5Si2), a host (crystal file), or a YAML file.
            guests: elements that are taken out and put back, or the one that is put into the host.
            max_atoms: of a cell.
        """
        return self._run("validate", [what], *_question(guests, max_atoms))

    def status(self, run: str) -> Progress:
        """Whether a search runs, how far it is and what it has found."""
        return self._run("status", [run])

    def results(self, run: str, top: int = 20, formula: str | None = None) -> list[FoundCrystal]:
        """The best distinct crystals of a run, lowest E_d first; their CIFs are written if there is a folder."""
        chosen = () if formula is None else ("--formula", formula)
        cif = ("--no-cif",) if self.folder is None else ("--cif", str(self.folder / "best" / Path(run).name))
        return self._run("results", [run], "--top", str(top), *chosen, *cif)

    def evaluate(self, files: list[str]) -> list[Evaluated]:
        """Energy and E_d of the crystals in files, as they are."""
        return self._run("evaluate", files)

    def known_phases(self, system: str) -> list[Phase]:
        """Known phases of a chemical system such as Li-Si, the stable ones first."""
        return self._run("reference show", [system])

    def search(
        self, what: str, minutes: float, guests: Sequence[str] = (), max_atoms: int | None = None, name: str = "search"
    ) -> Started:
        """Start a search in the background. It stops by itself; starting it again resumes it.

        Args:
            what: a chemical system (Li-Si), a formula (Li5Si2), a host (crystal file), or a YAML file.
            minutes: time limit.
            guests: elements that are taken out and put back, or the one that is put into the host.
            max_atoms: of a cell; without YAML 8.
            name: of the run's folder.
        """
        if not 0 < minutes <= LONGEST:
            raise ValueError(f"minutes must be above 0 and at most {LONGEST:g}, got {minutes}")
        run = self._inside(f"runs/{name}")
        self._run("validate", [what], *_question(guests, max_atoms))  # raises if the question cannot be answered
        run.parent.mkdir(parents=True, exist_ok=True)
        words = ["search", *_question(guests, max_atoms), "--minutes", str(minutes), "--run", str(run), "--", what]
        with run.with_suffix(".log").open("ab") as log:
            subprocess.Popen(
                [*PROGRAM, *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Started(run=str(run), minutes=minutes)

    def relax(self, files: list[str], name: str = "relaxed", fmax: float = 0.05) -> list[Relaxed]:
        """Relax the crystals in files; CIFs are written to the folder ``name``. ``fmax`` is in eV/Å."""
        return self._run("relax", files, "--out", str(self._inside(name)), "--overwrite", "--fmax", str(fmax))

    def inpaint(self, host: str, guest: str, count: int = 1, samples: int = 8, name: str = "filled") -> list[Filled]:
        """Put ``count`` atoms of a guest into the cell of a host; CIFs are written to the folder ``name``."""
        options = ("--guest", guest, "--count", str(count), "--samples", str(samples))
        return self._run("inpaint", [host], *options, "--out", str(self._inside(name)))

    def verify(
        self, sources: list[str], top: int = 10, phonons: bool = False, name: str = "verified"
    ) -> list[Verified]:
        """Whether crystals are known, charge-balanced and a minimum of energy, and a verdict: worth DFT, or why not.

        Args:
            sources: one run in the folder, or crystal files and known phases such as mp-149, which are relaxed first.
            top: of a run: number of best crystals.
            phonons: also phonons and elastic constants; up to a minute a crystal.
            name: of the folder for pictures and CIFs.
        """
        self._require_own(sources)
        options = ("--top", str(top), "--out", str(self._inside(name)), *(("--phonons",) if phonons else ()))
        return self._run("verify", sources, *options)

    def judge(self, sources: list[str], potentials: list[str], top: int = 20) -> list[Judged]:
        """Relax crystals with other potentials, and measure each against that potential's own hull.

        Args:
            sources: one run in the folder, which keeps the result, or crystal files and known phases such as mp-149.
            potentials: names such as chgnet-r2scan, or 7net-l3i5 if its extra is installed.
            top: of a run: number of best crystals.
        """
        self._require_own(sources)
        judges = [word for name in potentials for word in ("--with", name)]
        return self._run("judge", sources, *judges, "--top", str(top))

    @property
    def offered(self) -> list[Callable[..., Any]]:
        """Those that may be used: without a folder only the ones that write nothing."""
        reading: list[Callable[..., Any]] = [self.validate, self.status, self.results, self.evaluate, self.known_phases]
        writing: list[Callable[..., Any]] = [self.search, self.relax, self.inpaint, self.verify, self.judge]
        return reading if self.folder is None else [*reading, *writing]

    def _require_own(self, sources: Sequence[str]) -> None:
        """Raise ValueError if a run lies outside the folder: what is said of its crystals is stored in it."""
        for source in sources:
            if is_run(run_path(source)):
                self._inside(source)

    def _inside(self, name: str) -> Path:
        """A path in the folder; raises ValueError for any other."""
        assert self.folder is not None, "tools that write are offered with a folder only"
        path = (self.folder / name).resolve()
        if path == self.folder or not path.is_relative_to(self.folder):
            raise ValueError(f"{name} does not lie in {self.folder}, the folder that this server may write to")
        return path

    def _run(self, command: str, arguments: Sequence[str], *options: str) -> Any:
        """What a command prints; raises ValueError with its message if it fails."""
        done = subprocess.run(
            [*PROGRAM, *command.split(), *options, "--json", "--", *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, FAILED_FOR_SOME) or not done.stdout.strip():
            raise ValueError(done.stderr.strip()[-2000:] or f"hostguide {command} ended with code {done.returncode}")
        return RECORDS[command].validate_python(json.loads(done.stdout))


def _question(guests: Sequence[str], max_atoms: int | None) -> list[str]:
    """Options of a search without YAML."""
    some = [] if max_atoms is None else ["--max-atoms", str(max_atoms)]
    return [*(word for guest in guests for word in ("--guest", guest)), *some]


def server(folder: Path | None) -> MCPServer:
    """The MCP server.

    Args:
        folder: in which its tools may write; None: nothing is written.

    Raises:
        ImportError: the extra ``mcp`` is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise ImportError("hostguide mcp needs the MCP SDK: pip install 'hostguide[mcp]'") from error
    tools = Tools(folder)
    made = MCPServer("hostguide", instructions=INSTRUCTIONS, version=version("hostguide"), log_level="WARNING")
    reading = {tool.__name__ for tool in Tools(None).offered}

    def saying_why(tool: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(tool)
        def called(*arguments: Any, **options: Any) -> Any:
            try:
                return tool(*arguments, **options)
            except ValueError as error:
                raise ToolError(str(error)) from error  # the SDK keeps the messages of other errors from the agent

        return called

    for tool in tools.offered:
        only_reads = tool.__name__ in reading and (folder is None or tool.__name__ != "results")
        made.tool(annotations=ToolAnnotations(read_only_hint=only_reads, destructive_hint=False))(saying_why(tool))
    return made
