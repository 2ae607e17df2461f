"""Filling one host with a number of guests, by several ways of placing them, and keeping the lowest arrangements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from pydantic import Field

from model.analysis.electrode import host_kept
from model.crystals.crystal import Crystal
from model.crystals.screening import ScreenSettings
from model.crystals.voids import guest_sites
from model.generation.disorder import Disordered, order
from model.generation.initial_placements import uniform
from model.generators.inpainting import Inpainting
from model.generators.symmetric import Symmetric
from model.reasons import Reason
from model.relaxation.polish import Polished, polish
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked, relax
from model.settings import Settings
from model.stages import CrystalMaker, Rejected, Relaxer
from search.studies.inpaint import make_templates

COLLAPSED = 0.2  # relative volume change of an empty host beyond which it is no longer the host that was given


class FillSettings(Settings):
    """How hosts are filled, and how the crystals are relaxed."""

    inpainted: int = Field(4, ge=0)  # arrangements that the score model places freely, for each content
    symmetric: int = Field(2, ge=0)  # that it places on orbits of the host's space group
    uniform: int = Field(0, ge=0)  # that lie anywhere without overlap; a baseline
    voids: int = Field(4, ge=0)  # lowest of the arrangements on the host's voids
    void_arrangements: int = Field(24, ge=1)  # on voids, whose energy is computed
    share: float = Field(0.5, gt=0, le=1)  # of all that are relaxed in full, lowest first, after the guests alone
    guest_steps: int = Field(10, ge=0)  # of the guests alone
    fmax: float = Field(0.05, gt=0)  # eV/Å, of all relaxations
    fine_fmax: float = Field(0.03, gt=0)  # eV/Å, of the lowest arrangement
    max_steps: int = Field(300, ge=1)  # of each relaxation
    polish: bool = False  # whether the lowest arrangement is polished, see docs/relaxation.md


@dataclass(frozen=True, eq=False, kw_only=True)
class Filling:
    """A host with its guests, relaxed.

    Attributes:
        relaxation: of the whole crystal, host atoms first.
        guest: (n,) bool, which of its atoms are guests.
        host_kept: whether the host is the framework that was filled (topotactic).
        host_moved: Å, root-mean-square displacement of the host's atoms.
    """

    relaxation: Relaxation
    guest: np.ndarray
    host_kept: bool
    host_moved: float

    @property
    def crystal(self) -> Crystal:
        """The crystal as relaxed."""
        return self.relaxation.final

    @property
    def energy(self) -> float:
        """eV per cell."""
        return self.relaxation.energy_final * len(self.crystal)


@dataclass(frozen=True, eq=False, kw_only=True)
class Filled:
    """What came of filling a host with a number of guests.

    Attributes:
        fillings: relaxed in full, lowest energy first; none if all attempts failed.
        dropped: reason -> number of attempts that were dropped.
    """

    fillings: list[Filling]
    dropped: Counter[str]

    @property
    def topotactic(self) -> Filling | None:
        """The lowest that kept its host."""
        return next((one for one in self.fillings if one.host_kept), None)


class HostFiller:
    """Fills hosts with guests; owns the score model and the potential.

    Args:
        potential: name in the catalogue.
        weights: of the score model.
        settings: see `FillSettings`.
    """

    def __init__(self, potential: str, weights: str | None, settings: FillSettings) -> None:
        self.settings = settings
        self.maker = CrystalMaker(weights, "cpu")
        coarse = RelaxSettings(
            fmax=settings.fmax, max_steps=settings.max_steps, share=settings.share, guest_steps=settings.guest_steps
        )
        self.fine = coarse.model_copy(update={"fmax": settings.fine_fmax, "share": 1.0})
        self.relaxer = Relaxer(potential, coarse, ScreenSettings())

    def relaxed(self, crystal: Crystal) -> Relaxation:
        """A crystal that is known, relaxed as the lowest arrangements are."""
        if self.settings.polish:
            (polished,) = self._polished([crystal])
            return polished
        (outcome,) = relax([crystal], self.relaxer.potential, self.fine)
        return outcome

    def fill(
        self,
        host: Crystal,
        guest: str,
        count: int,
        *,
        seed: int,
        like: Crystal,
        known: Crystal | None = None,
    ) -> Filled:
        """Fill a host, and rank the arrangements.

        Args:
            host: the crystal.
            guest: element.
            count: guests in the cell.
            seed: determines where they are placed.
            like: the host with which the filled ones are compared, atoms in the same order.
            known: an arrangement that is tried too, host atoms first and in this order.

        Raises:
            ValueError: the guests do not fit into the host.
        """
        given = [] if known is None else [(known, np.arange(len(known)) >= len(host))]
        fillings, dropped = self._relaxed_all(self._placed(host, guest, count, seed) + given, like)
        return Filled(fillings=self._finished(fillings, like), dropped=dropped)

    def empty(self, host: Crystal) -> tuple[Relaxation, bool, float]:
        """A host relaxed without guests, whether it is still this host, and how far its atoms moved, Å.

        It is not if its framework is lost, or its volume changed by more than `COLLAPSED`.
        """
        outcome = self.relaxed(host)
        kept, moved = host_kept(host, outcome.final)
        return outcome, kept and abs(outcome.final.volume / host.volume - 1) <= COLLAPSED, moved

    def _relaxed_all(
        self, placed: Sequence[tuple[Crystal, np.ndarray]], like: Crystal
    ) -> tuple[list[Filling], Counter[str]]:
        """Relax arrangements: those that came through, lowest first, and why the others did not."""
        outcomes = self.relaxer.relax([crystal for crystal, _ in placed], guests=[mask for _, mask in placed])
        dropped, fillings = Counter[str](), list[Filling]()
        for outcome, (_, mask) in zip(outcomes, placed, strict=True):
            if isinstance(outcome, Rejected) or not may_be_ranked(outcome) or outcome.reason == Reason.NOT_PROMISING:
                dropped[outcome.reason] += 1
            else:
                fillings.append(self._filling(outcome, mask, like))
        return sorted(fillings, key=lambda one: one.energy), dropped

    def _placed(self, host: Crystal, guest: str, count: int, seed: int) -> list[tuple[Crystal, np.ndarray]]:
        """Crystals before relaxation, and which of their atoms are guests."""
        chosen = self.settings
        ways = [Symmetric] * chosen.symmetric + [Inpainting] * chosen.inpainted
        placed = self._on_voids(host, guest, count, seed) if chosen.voids else []
        if chosen.uniform:
            templates = make_templates(host, {guest: count}, samples=chosen.uniform, seed=seed)
            placed += [(uniform(template).crystal, template.guest) for template in templates]
        if ways:
            templates = make_templates(host, {guest: count}, samples=len(ways), seed=seed)
            made = self.maker.generate(templates, [way.name for way in ways], [way.default for way in ways])
            placed += [(one.crystal, template.guest) for one, template in zip(made, templates, strict=True)]
        return placed

    def _on_voids(self, host: Crystal, guest: str, count: int, seed: int) -> list[tuple[Crystal, np.ndarray]]:
        """The arrangements of lowest energy, before relaxation, of guests on the voids of a host."""
        sites = guest_sites(host)
        if len(sites) < count:
            return []
        numbers = np.concatenate([host.numbers, np.zeros(len(sites), dtype=int)])
        free = np.arange(len(host), len(numbers))
        disordered = Disordered(
            lattice=host.lattice,
            fractional=np.concatenate([host.fractional, [site.fractional for site in sites]]),
            fixed=numbers,
            groups=[(free, {atomic_numbers[guest]: count})],
            occupancy={},
        )
        try:
            ways = order(disordered, self.settings.void_arrangements, seed=seed)
        except ValueError:  # guests on all of these voids overlap
            return []
        placed = [disordered.crystal(way) for way in ways]
        energies = [one.energy for one in self.relaxer.potential.evaluate([crystal for crystal, _ in placed])]
        return [placed[i] for i in np.argsort(energies, kind="stable")[: self.settings.voids]]  # NaN goes last

    def _finished(self, fillings: list[Filling], like: Crystal) -> list[Filling]:
        """The lowest, and the lowest that kept its host, relaxed to small forces."""
        first = [*fillings[:1], *[one for one in fillings if one.host_kept][:1]]
        chosen = [one for i, one in enumerate(first) if one not in first[:i]]
        crystals = [one.crystal for one in chosen]
        if self.settings.polish:
            fine: Sequence[Relaxation] = self._polished(crystals)
        else:
            fine = relax(crystals, self.relaxer.potential, self.fine)
        better = [
            self._filling(outcome, one.guest, like) if may_be_ranked(outcome) else one
            for one, outcome in zip(chosen, fine, strict=True)
        ]
        return sorted([*better, *(one for one in fillings if one not in chosen)], key=lambda one: one.energy)

    def _polished(self, crystals: Sequence[Crystal]) -> list[Polished]:
        return polish(crystals, self.relaxer.potential, self.fine)

    def _filling(self, outcome: Relaxation, guest: np.ndarray, like: Crystal) -> Filling:
        kept, moved = host_kept(like, outcome.final.select(~guest))
        return Filling(relaxation=outcome, guest=guest, host_kept=kept, host_moved=moved)
