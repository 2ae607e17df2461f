"""Verifying one crystal: all that is asked of it before DFT, except its energy.

`Verifier` is a plain class, as those of `model.stages` are; actors only wrap it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from model.crystals.crystal import Crystal
from model.library.phases import packaged_library
from model.potentials.catalog import PotentialChoice, load_potential
from model.verification.charge import ChargeBalance, charge_balance
from model.verification.elastic import Elastic, elastic_constants
from model.verification.known_types import KnownType, nearest_type
from model.verification.modes import Followed, follow_modes
from model.verification.phonons import Bands, Mode, NoPhonons, phonons
from model.verification.settings import VerifySettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Vibrations:
    """The phonons of a crystal without their force constants.

    Attributes:
        lowest: THz, the lowest mode at the wave vectors of the supercell.
        imaginary: the modes along which the energy falls.
        interpolated: THz, lowest frequency on the path of the bands.
        bands: the bands.
        dos_frequencies, dos: (k,) THz, and states per THz and cell.
        atoms: of the supercell.
        displacements: number of displaced supercells.
    """

    lowest: Mode
    imaginary: tuple[Mode, ...]
    interpolated: float
    bands: Bands
    dos_frequencies: np.ndarray
    dos: np.ndarray
    atoms: int
    displacements: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Verification:
    """What was found out about a crystal.

    Attributes:
        balance: of its charges.
        known: identifier of the known crystal that it is; None if it is new.
        type: the known crystal of another formula that is most similar; None if there is none.
        vibrations: None if they were not asked for, or failed.
        followed: what its imaginary modes lead to, lowest first.
        elastic: None if not asked for, or failed.
        problem: why phonons or elastic constants failed; else empty.
    """

    balance: ChargeBalance
    known: str | None
    type: KnownType | None
    vibrations: Vibrations | None = None
    followed: tuple[Followed, ...] = ()
    elastic: Elastic | None = None
    problem: str = ""


class Verifier:
    """Verifies crystals one by one.

    Args:
        potential: a name of the catalogue, or a calculator.
        settings: see `VerifySettings`.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, potential: PotentialChoice, settings: VerifySettings, device: str = "cpu") -> None:
        self.settings, self.library = settings, packaged_library()
        self.potential = load_potential(potential, device=device) if settings.phonons else None

    def verify(self, crystal: Crystal) -> Verification:
        """All that the settings ask for; what fails is named in ``problem``.

        Args:
            crystal: relaxed.
        """
        found: dict[str, Any] = {
            "balance": charge_balance(crystal),
            "known": self.library.known(crystal),
            "type": nearest_type(crystal, self.library),
        }
        settings = self.settings.phonons
        if self.potential is None or settings is None:
            return Verification(**found)
        try:
            own = phonons(crystal, self.potential, settings)
            elastic = elastic_constants(own.crystal, self.potential)
        except (NoPhonons, ValueError) as error:
            return Verification(**found, problem=str(error))
        vibrations = Vibrations(
            lowest=own.modes[0],
            imaginary=own.imaginary,
            interpolated=own.interpolated,
            bands=own.bands,
            dos_frequencies=own.dos_frequencies,
            dos=own.dos,
            atoms=round(abs(np.linalg.det(own.supercell))) * len(own.crystal),
            displacements=own.displacements,
        )
        followed = tuple(follow_modes(own, self.potential, most=settings.follow)) if own.imaginary else ()
        return Verification(**found, vibrations=vibrations, followed=followed, elastic=elastic)
