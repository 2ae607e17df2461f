"""Settings of a verification. They are here so that reading a configuration does not load phonopy."""

from __future__ import annotations

from pydantic import Field

from model.settings import Settings


class PhononSettings(Settings):
    """How phonons are computed."""

    height: float = Field(8.0, gt=0)  # Å, smallest distance between opposite faces of the supercell
    displacement: float = Field(0.05, gt=0)  # Å; potentials may not be smooth over less
    fmax: float = Field(1e-3, gt=0)  # eV/Å; the crystal is relaxed to it in its space group
    max_steps: int = Field(300, ge=0)  # of that relaxation
    max_atoms: int = Field(600, ge=1)  # of the supercell
    follow: int = Field(2, ge=0)  # imaginary modes of a crystal that are followed, the lowest first
    imaginary: float = Field(0.1, ge=0)  # THz; lowest frequencies above minus this are no imaginary modes


class VerifySettings(Settings):
    """What is found out about crystals, and of how many."""

    top: int = Field(10, ge=1)  # distinct crystals of a run, best E_d first
    phonons: PhononSettings | None = PhononSettings()  # with imaginary modes and elastic constants; null: none
