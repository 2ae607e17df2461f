"""What potentials have said about known phases, kept in a folder of the user, so that no phase is relaxed twice.

One file per phase and potential, written as a whole or not at all: several processes may use the folder at the same
time. Two that work on the same phase write the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from model.crystals.crystal import Crystal
from model.files import written_whole
from model.potentials.interface import Potential
from model.relaxation.relax import RelaxSettings

VARIABLE = "HOSTGUIDE_CACHE"  # of the environment: another folder


def cache_folder() -> Path:
    """The folder that `HOSTGUIDE_CACHE` names, else the user's own for such files: ``~/.cache/hostguide`` on Linux."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else platformdirs.user_cache_path("hostguide", appauthor=False)


@dataclass(frozen=True, kw_only=True)
class JudgedPhase:
    """A known phase by one potential.

    Attributes:
        material_id: identifier.
        start: `Crystal.identity` of the geometry that it started from.
        energy_single_point: eV/atom at this geometry.
        energy: eV/atom, relaxed, or that of the single point.
        volume_per_atom: Å³ at this energy.
        reason: why its relaxation ended; empty if it has not been relaxed.
        converged: whether it is relaxed.
        crystal: hexadecimal `Crystal.to_bytes` of the relaxed crystal; empty if there is none.
    """

    material_id: str
    start: str
    energy_single_point: float
    energy: float
    volume_per_atom: float
    reason: str = ""
    converged: bool = False
    crystal: str = ""

    @property
    def relaxed_crystal(self) -> Crystal | None:
        """The crystal after relaxation; None if there was none."""
        return Crystal.from_bytes(bytes.fromhex(self.crystal)) if self.crystal else None


class PhaseCache:
    """The phases that one potential has judged with the same settings.

    Args:
        potential: its name and version are part of the folder's name.
        relaxation: settings; likewise.
        folder: of all potentials (default: `cache_folder`).
    """

    def __init__(self, potential: Potential, relaxation: RelaxSettings, folder: Path | None = None) -> None:
        key = {
            "potential": potential.name,
            "version": potential.version,
            "relaxation": relaxation.model_dump(mode="json"),
        }
        self._about = json.dumps(key, indent=1, sort_keys=True)
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", potential.name)[:60].strip("_")
        digest = hashlib.blake2b(self._about.encode(), digest_size=6).hexdigest()
        self.folder = (folder or cache_folder()) / "phases" / f"{readable}-{digest}"

    def get(self, material_id: str, start: Crystal) -> JudgedPhase | None:
        """What is known of a phase that starts from this geometry; None if nothing, or if its file is damaged."""
        try:
            found = JudgedPhase(**json.loads(self._path(material_id).read_text()))
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, TypeError):
            return None
        return found if found.start == start.identity else None

    def put(self, phase: JudgedPhase) -> None:
        """Keep what is known of a phase.

        Raises:
            OSError: the folder cannot be written; the message names the remedy.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = self.folder / "about.json"
            if not about.exists():
                _write(about, self._about)
            _write(self._path(phase.material_id), json.dumps(asdict(phase)))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.folder} cannot be written ({error.strerror}): name another folder with HOSTGUIDE_CACHE",
            ) from error

    def _path(self, material_id: str) -> Path:
        return self.folder / f"{material_id}.json"


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text)
