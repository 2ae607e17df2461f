"""The three steps of every candidate as plain classes: generate, relax, analyse.

Each step takes the results of the previous one and returns one result per candidate. Actors only wrap these classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import RELAXED, UNRELAXED, DistinctCrystals, distance_fingerprints
from model.crystals.screening import ScreenSettings, screen
from model.diffusion.sampler import SamplerSettings, Samples, Template, sample
from model.generation.framework import Framework, choose_guest, extract_frameworks
from model.generation.wyckoff_placement import HostGroup, host_groups
from model.generators.registry import GENERATORS
from model.library.phases import packaged_library
from model.potentials.catalog import DEFAULT, PotentialChoice, load_potential
from model.potentials.interface import Potential
from model.reasons import Reason
from model.relaxation.candidate_funnel import relax_in_stages
from model.relaxation.polish import Polished, PolishSettings, polish
from model.relaxation.relax import Relaxation, RelaxSettings, may_be_ranked
from model.settings import Settings
from model.symmetry.space_group import SpaceGroup, space_group
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Decomposition, Stability

# What a row says of the relaxation that came before polishing.
OF_RELAXATION = ("initial", "energy_initial", "max_force_initial", "steps", "n_independent_atoms")
HOSTS_KEPT = 200  # number of hosts whose groups, and of crystals whose modes, a crystal maker caches


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """A generated crystal.

    Attributes:
        crystal: before relaxation.
        evaluations: calls of the score model for the whole batch; 0 if it was not used.
        score_model: version of its weights; None if it was not used.
        seconds: share of the wall time of the batch.
    """

    crystal: Crystal
    evaluations: int
    score_model: str | None
    seconds: float


@dataclass(frozen=True)
class Rejected:
    """A crystal that was rejected before relaxation.

    Attributes:
        reason: of the rejection.
        duplicate_offset: for a duplicate, how many places earlier in the batch the original is; None otherwise.
    """

    reason: Reason
    duplicate_offset: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PolishedCrystal:
    """A crystal that was polished in an earlier task.

    Attributes:
        candidate: its name.
        content: see `Crystal.to_bytes`.
        energy: eV/atom.
    """

    candidate: str
    content: bytes
    energy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class PolishRequest:
    """Which crystals of a batch are polished.

    Attributes:
        settings: how.
        above_hull: reduced formula -> eV/atom above the hull up to which converged crystals are.
        known: those that are polished already; what relaxes to one of them is not polished again.
    """

    settings: PolishSettings
    above_hull: Mapping[str, float]
    known: Sequence[PolishedCrystal]


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeat(Relaxation):
    """A crystal that relaxed to one that is polished already.

    Attributes:
        repeats: name of the earlier candidate; or how many places earlier in the batch it is.
    """

    repeats: str | int


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """Analysis of a relaxed crystal.

    Attributes:
        space_group: of polished crystals at 0.01 Å, of others at the paper's tolerance, 0.1 Å and 10°; None if spglib
            finds none.
        decomposition: E_d and products.
        e_d_with_found: eV/atom, E_d against the hull of the reference and the phases that the search had found.
        frameworks: symmetric hosts without the guests, if requested.
        guests: elements that were removed.
        fingerprint: see `model.crystals.matching.distance_fingerprints`.
        known: identifier of the known phase that it is, see `model.library`; None if it is new.
        repeats: for a crystal that relaxed to the same structure as an earlier one, how many places earlier in the
            batch that is, or its name if it was polished in an earlier task; None otherwise.
        seconds: wall time.
    """

    space_group: SpaceGroup | None
    decomposition: Decomposition
    e_d_with_found: float
    frameworks: list[Framework]
    guests: list[str]
    fingerprint: np.ndarray
    known: str | None
    repeats: str | int | None
    seconds: float


class CrystalMaker:
    """Makes crystals with any generator, and owns the score model that some of them share.

    Args:
        weights: of the score model, see `model.diffusion.checkpoint.weights_file`.
        device: ``cpu``, ``cuda`` or ``auto``.
        potential: of the generator that computes phonons; loaded when it is needed.
    """

    def __init__(self, weights: str | None = None, device: str = "auto", potential: PotentialChoice = DEFAULT) -> None:
        # The networks need e3nn, which takes a second to import; the other steps do without.
        from model.diffusion.checkpoint import default_device, load_network, weights_file, weights_version

        path = weights_file(weights)
        self.device = default_device() if device == "auto" else device
        self.network = load_network(path, device=self.device)
        self.version = weights_version(path)
        self._known_groups: dict[str, list[HostGroup]] = {}
        self._choice, self._ways = potential, dict[str, list[Crystal]]()

    def generate(
        self, templates: Sequence[Template], generators: Sequence[str], settings: Sequence[Settings | None]
    ) -> list[Made]:
        """Make one crystal per template; those with the same generator and settings in one batch.

        Args:
            templates: proposals of the generators.
            generators: name of the generator of each template, see `model.generators.registry`.
            settings: settings of the generator of each template.
        """
        began = time.monotonic()
        recipes = list(zip(generators, settings, strict=True))
        made: dict[int, tuple[Crystal, int]] = {}
        for name, its in dict.fromkeys(recipes):
            places = [place for place, recipe in enumerate(recipes) if recipe == (name, its)]
            samples = GENERATORS[name].make([templates[place] for place in places], its, self)
            made |= {
                place: (crystal, samples.evaluations) for place, crystal in zip(places, samples.crystals, strict=True)
            }
        seconds = (time.monotonic() - began) / len(templates)
        return [
            Made(crystal=crystal, evaluations=calls, score_model=self.version if calls else None, seconds=seconds)
            for crystal, calls in (made[place] for place in range(len(templates)))
        ]

    def sample(self, templates: Sequence[Template], settings: SamplerSettings) -> Samples:
        """Reverse diffusion with the score model."""
        return sample(self.network, templates, settings, device=self.device)

    def groups(self, template: Template) -> list[HostGroup]:
        """Groups of a template's host; cached, because a host is usually filled more than once."""
        host = template.crystal.select(~template.guest)
        if host.identity not in self._known_groups:
            if len(self._known_groups) >= HOSTS_KEPT:
                self._known_groups.clear()
            self._known_groups[host.identity] = host_groups(host)
        return self._known_groups[host.identity]

    @cached_property
    def _potential(self) -> Potential:
        return load_potential(self._choice, device=self.device)

    def along_modes(self, crystal: Crystal) -> list[Crystal]:
        """The ways along the lowest modes; cached, because each crystal is asked for more than once."""
        from model.verification.modes import ways_along_modes  # phonopy, which the other generators do without

        if crystal.identity not in self._ways:
            if len(self._ways) >= HOSTS_KEPT:
                self._ways.clear()
            self._ways[crystal.identity] = ways_along_modes(crystal, self._potential)
        return self._ways[crystal.identity]


class Relaxer:
    """Screens crystals and relaxes those that pass.

    Args:
        potential: its name in the catalogue, or a calculator.
        relaxation: default settings.
        screening: which crystals are rejected.
        hull: reduced formula -> energy (eV/atom) relative to which ``energy_ceiling`` of the settings is measured; see
            `relax`.
        device: ``cpu`` or ``cuda``; a calculator takes its own from its arguments.
    """

    def __init__(
        self,
        potential: PotentialChoice,
        relaxation: RelaxSettings,
        screening: ScreenSettings,
        hull: Mapping[str, float] | None = None,
        device: str = "cpu",
    ) -> None:
        self.potential = load_potential(potential, device=device)
        self.relaxation, self.screening, self.hull = relaxation, screening, hull or {}

    def relax(
        self,
        crystals: Sequence[Crystal],
        free: Sequence[np.ndarray] | None = None,
        settings: RelaxSettings | None = None,
        guests: Sequence[np.ndarray | None] | None = None,
        request: PolishRequest | None = None,
    ) -> list[Relaxation | Rejected]:
        """One outcome per crystal, in order: low ones `Polished` or a `Repeat`, if that is requested.

        The crystals are relaxed together. The wall time is divided among them by number of independent atoms and steps,
        so that the ``seconds`` of all outcomes add up to the total.

        Args:
            crystals: to relax.
            free: masks (n,) of the atoms that may move (default: all).
            settings: override the relaxer's own settings.
            guests: masks (n,) of the atoms that were placed into a host, None for other crystals; see
                `model.relaxation.candidate_funnel`.
            request: which of them are polished; needs a hull, and all atoms free.
        """
        began = time.monotonic()
        settings = settings or self.relaxation
        verdicts = self._screen(crystals, settings)
        places = [index for index, verdict in enumerate(verdicts) if verdict is None]
        masks = None if free is None else [free[index] for index in places]
        placed = None if guests is None else [guests[index] for index in places]
        accepted = [crystals[index] for index in places]
        relaxed = relax_in_stages(accepted, self.potential, settings, free=masks, guests=placed, known=self.hull)
        work = [outcome.n_independent_atoms * (outcome.steps + 1) for outcome in relaxed]
        second = (time.monotonic() - began) / max(1, sum(work))
        shared = iter([replace(outcome, seconds=second * n) for outcome, n in zip(relaxed, work, strict=True)])
        outcomes = [next(shared) if verdict is None else verdict for verdict in verdicts]
        return outcomes if request is None else self._polished(outcomes, settings, request)

    def _polished(
        self, outcomes: Sequence[Relaxation | Rejected], settings: RelaxSettings, request: PolishRequest
    ) -> list[Relaxation | Rejected]:
        """The outcomes, those of low crystals polished; each distinct crystal once."""
        began, results = time.monotonic(), list(outcomes)
        distinct, earlier = DistinctCrystals(RELAXED), list[tuple[str | int, float]]()
        for known in request.known:
            distinct.add(Crystal.from_bytes(known.content), energy=known.energy)
            earlier.append((known.candidate, known.energy))
        chosen: dict[int, Relaxation] = {}
        for place, outcome in enumerate(outcomes):
            if isinstance(outcome, Rejected) or not self._is_low(outcome, request.above_hull[outcome.final.formula]):
                continue
            same = distinct.add(outcome.final, energy=outcome.energy_final)
            earlier.append((place, outcome.energy_final))
            original, energy = earlier[same] if same is not None else ("", math.inf)
            if outcome.energy_final < energy - request.settings.tolerance:  # new, or lower than what it is alike
                chosen[place] = outcome
            else:
                repeats = original if isinstance(original, str) else place - original
                results[place] = Repeat(
                    **{one.name: getattr(outcome, one.name) for one in fields(outcome)}, repeats=repeats
                )
        polished = polish([one.final for one in chosen.values()], self.potential, settings, request.settings)
        second = (time.monotonic() - began) / max(1, sum(one.evaluations for one in polished))
        for (place, before), after in zip(chosen.items(), polished, strict=True):
            kept = {name: getattr(before, name) for name in OF_RELAXATION}
            better = replace(after, **kept) if after.converged else before
            results[place] = replace(better, seconds=before.seconds + second * after.evaluations)
        return results

    def _is_low(self, outcome: Relaxation, above_hull: float) -> bool:
        """Whether a converged crystal lies at most this far above the hull, eV/atom."""
        hull = self.hull.get(outcome.final.formula)
        return hull is not None and outcome.converged and outcome.energy_final - hull <= above_hull

    def _screen(self, crystals: Sequence[Crystal], settings: RelaxSettings) -> list[Rejected | None]:
        distinct, places = DistinctCrystals(UNRELAXED), []
        verdicts: list[Rejected | None] = []
        for index, crystal in enumerate(crystals):
            reason = screen(crystal, self.screening)
            if reason is not None:
                verdicts.append(Rejected(reason))
                continue
            places.append(index)
            kept = space_group(crystal, settings.symprec, angle_tolerance=-1) if settings.keep_symmetry else None
            known = distinct.add(crystal, None if kept is None else kept.number)
            verdicts.append(None if known is None else Rejected(Reason.DUPLICATE, index - places[known]))
        return verdicts


class Analyser:
    """Finds space groups, decomposition energies and frameworks of relaxed crystals.

    Args:
        reference: competing phases.
        elements: of the search.
        guests: elements that are removed to get frameworks; None to choose them for each batch.
        tolerances: (Å, degrees) at which frameworks are symmetrised.
        screening: which frameworks are rejected.
    """

    def __init__(
        self,
        reference: Reference,
        elements: Sequence[str],
        guests: Sequence[str] | None,
        tolerances: Sequence[tuple[float, float]],
        screening: ScreenSettings,
    ) -> None:
        self.stability = Stability(reference, elements)
        self.guests, self.tolerances, self.screening = guests, tolerances, screening

    def analyse(
        self,
        relaxed: Sequence[Relaxation | Rejected],
        guests_to_remove: Sequence[Sequence[str] | None],
        found_phases: Mapping[str, float] | None = None,
        max_parent_e_d: float = math.inf,
    ) -> list[Analysis | None]:
        """One analysis per crystal, in order; None if there is no relaxed structure.

        Args:
            relaxed: crystals of one batch.
            guests_to_remove: for each crystal, the guests to remove to get frameworks; empty: choose them; None: no
                frameworks.
            found_phases: reduced formula -> energy (eV/atom) of phases to add to the second hull.
            max_parent_e_d: E_d (eV/atom) above which no frameworks are extracted.
        """
        distinct, places = DistinctCrystals(RELAXED), []
        analyses: list[Analysis | None] = []
        chosen = self._guests(relaxed) if any(names is not None for names in guests_to_remove) else []
        hull = self.stability.extended(found_phases or {})
        sound = [outcome for outcome in relaxed if isinstance(outcome, Relaxation) and may_be_ranked(outcome)]
        fingerprints = iter(distance_fingerprints([outcome.final for outcome in sound]))
        for index, (outcome, names) in enumerate(zip(relaxed, guests_to_remove, strict=True)):
            if isinstance(outcome, Rejected) or not may_be_ranked(outcome):
                analyses.append(None)
                continue
            places.append(index)
            fingerprint = next(fingerprints)
            known = distinct.add(outcome.final, energy=outcome.energy_final, fingerprint=fingerprint)
            repeats: str | int | None = None if known is None else index - places[known]
            if isinstance(outcome, Repeat):
                repeats = outcome.repeats
            guests = [] if names is None else list(names) or chosen
            analyses.append(self._analyse(outcome, fingerprint, repeats, guests, hull, max_parent_e_d))
        return analyses

    def _analyse(
        self,
        outcome: Relaxation,
        fingerprint: np.ndarray,
        repeats: str | int | None,
        guests: Sequence[str],
        hull: Stability,
        max_parent_e_d: float,
    ) -> Analysis:
        began = time.monotonic()
        crystal = outcome.final
        decomposition = self.stability.decomposition(crystal.composition, outcome.energy_final)
        present = set(crystal.symbols)
        out = [element for element in guests if element in present]
        wanted = repeats is None and 0 < len(out) < len(present) and decomposition.e_d <= max_parent_e_d
        return Analysis(
            space_group=outcome.space_group if isinstance(outcome, Polished) else space_group(crystal),
            decomposition=decomposition,
            e_d_with_found=hull.decomposition(crystal.composition, outcome.energy_final).e_d,
            frameworks=extract_frameworks(crystal, out, self.tolerances, screening=self.screening) if wanted else [],
            guests=out,
            fingerprint=fingerprint,
            known=packaged_library().known(crystal),
            repeats=repeats,
            seconds=time.monotonic() - began,
        )

    def _guests(self, relaxed: Sequence[Relaxation | Rejected]) -> list[str]:
        """The elements to remove: those configured, or the one whose local environments vary most in this batch."""
        if self.guests is not None:
            return list(self.guests)
        finals = [outcome.final for outcome in relaxed if isinstance(outcome, Relaxation) and may_be_ranked(outcome)]
        mixed = [crystal for crystal in finals if len(set(crystal.symbols)) > 1]
        return choose_guest(mixed) if mixed else []
