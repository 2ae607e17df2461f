"""One verdict for a crystal, in words, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from model.verification.charge import Balance, ChargeBalance

FAR = 0.1  # eV/atom above the hull, plus the error, beyond which no method is expected to bring a crystal back


class Grade(StrEnum):
    """What to do with a crystal."""

    KNOWN = "known"
    WORTH_DFT = "worth DFT"
    DISTORTS = "distorts"  # not a minimum: what its imaginary modes lead to is what counts
    DOUBTFUL = "doubtful"
    TOO_HIGH = "too high"


@dataclass(frozen=True, kw_only=True)
class Energy:
    """How far a crystal lies from the hull.

    Attributes:
        e_d: eV/atom; None if it is not known.
        error: eV/atom; the spread of several potentials, or the error that one is known to have. None if unknown.
        source: where the error comes from, for the reader.
    """

    e_d: float | None
    error: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """How a crystal answers to small displacements and strains.

    Attributes:
        lowest: THz, lowest frequency; negative where imaginary.
        imaginary: whether that counts as imaginary.
        interpolated: THz, lowest frequency between the wave vectors of the supercell.
        fall: meV/atom, from the crystal to the lowest one that its imaginary modes lead to; None if none was found.
        leads_to: that crystal, in words.
        elastic: whether it resists all strains.
    """

    lowest: float
    imaginary: bool
    interpolated: float
    fall: float | None
    leads_to: str
    elastic: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict.

    Attributes:
        grade: in one word.
        reasons: in words.
    """

    grade: Grade
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """Both, for example ``worth DFT: new; balanced: Li+ S2−; a minimum``."""
        return f"{self.grade}: {'; '.join(self.reasons)}"


def verdict(*, known: str | None, balance: ChargeBalance, energy: Energy, lattice: Lattice | None) -> Verdict:
    """Judge a crystal by what was found out about it.

    Args:
        known: identifier of the known crystal that it is; None if it is new.
        balance: of its charges.
        energy: its distance from the hull.
        lattice: of its phonons and elastic constants; None if they were not computed.
    """
    reasons = [f"{known} of the library" if known else "new", balance.text, *_dynamics(lattice), _height(energy)]
    return Verdict(grade=_grade(known, balance, energy, lattice), reasons=tuple(reasons))


def _grade(known: str | None, balance: ChargeBalance, energy: Energy, lattice: Lattice | None) -> Grade:
    if known:
        return Grade.KNOWN
    if energy.e_d is not None and energy.e_d > FAR + (energy.error or 0.0):
        return Grade.TOO_HIGH
    if lattice is not None and lattice.fall:
        return Grade.DISTORTS
    if balance.kind is Balance.NONE or (lattice is not None and not lattice.elastic):
        return Grade.DOUBTFUL
    return Grade.WORTH_DFT


def _dynamics(lattice: Lattice | None) -> list[str]:
    if lattice is None:
        return ["phonons not computed"]
    reasons = []
    if lattice.fall:
        where = f"distorts to {lattice.leads_to}, {lattice.fall:.1f} meV/atom lower"
        reasons.append(f"no minimum (imaginary mode of {-lattice.lowest:.1f} THz), {where}")
    elif lattice.imaginary:
        reasons.append(
            f"an imaginary mode of {-lattice.lowest:.1f} THz, but nothing lower along it, "
            "as where the potential is not smooth"
        )
    else:
        reasons.append(f"a minimum (lowest mode {lattice.lowest:.1f} THz)")
        if lattice.interpolated < min(lattice.lowest, 0.0) - 0.3:
            reasons.append(f"interpolation between its wave vectors falls to {lattice.interpolated:.1f} THz")
    return reasons if lattice.elastic else [*reasons, "it gives way to a strain of its cell"]


def _height(energy: Energy) -> str:
    if energy.e_d is None:
        return "its distance from the hull is not known"
    text = f"{abs(1e3 * energy.e_d):.0f} meV/atom {'above' if energy.e_d > 0 else 'below'} the hull"
    return text if energy.error is None else f"{text}, ± {1e3 * energy.error:.0f} ({energy.source})"
