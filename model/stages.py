"""The three stations of a candidate's way as plain classes: generator, relaxer, symmetrizer.

Each takes what the one before returned and is all that an actor has to wrap.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.crystals.crystal import Crystal
from model.crystals.matching import DistinctCrystals
from model.crystals.screening import ScreenSettings, screen
from model.diffusion.checkpoint import default_device, load_network, weights_file, weights_version
from model.diffusion.sampler import SamplerSettings, Template, sample
from model.generation.framework import Framework, choose_guest, extract_frameworks
from model.generation.ion_substitution import ExchangeSettings
from model.generation.mutation import MutationSettings
from model.generation.random_crystal import RandomSettings, random_crystal
from model.generation.wyckoff_placement import HostGroup, SubgroupSettings, SymmetricSettings, host_groups, on_orbits
from model.potentials.chgnet.potential import CHGNetPotential
from model.relaxation.candidate_funnel import funnel
from model.relaxation.relax import Relaxation, RelaxSettings, usable
from model.symmetry.space_group import SpaceGroup, space_group
from model.thermodynamics.reference import Reference
from model.thermodynamics.stability import Decomposition, Stability

REMEMBERED = 200  # hosts whose groups a generator keeps
GeneratorSettings = (
    SamplerSettings | RandomSettings | ExchangeSettings | MutationSettings | SymmetricSettings | SubgroupSettings
)


@dataclass(frozen=True, eq=False)
class Generated:
    """Crystals in the order of their templates, with the cost of making them.

    Attributes:
        crystals: as sampled.
        evaluations: of each crystal, calls of the network for the crystals that were made with it.
        seconds: wall time a crystal.
        score_model: of each crystal, version of the weights; None if no network took part.
    """

    crystals: list[Crystal]
    evaluations: list[int]
    seconds: float
    score_model: list[str | None]


@dataclass(frozen=True)
class Rejected:
    """A crystal that was not worth relaxing.

    Attributes:
        reason: a code of `model.crystals.screening.REASONS`, or ``duplicate``.
        duplicate_of: index in the batch of the crystal that it repeats.
    """

    reason: str
    duplicate_of: int | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """What a relaxed crystal turned out to be.

    Attributes:
        space_group: at the paper's tolerance, 0.1 Å and 10°; None when spglib finds none.
        decomposition: E_d and products.
        e_d_found: eV/atom, E_d against the hull of the reference and of what the search had found.
        frameworks: symmetric hosts without the guests, if they were asked for.
        guests: elements that were taken out.
        duplicate_of: index in the batch of an earlier crystal that relaxed to the same structure.
        seconds: wall time.
    """

    space_group: SpaceGroup | None
    decomposition: Decomposition
    e_d_found: float
    frameworks: list[Framework]
    guests: list[str]
    duplicate_of: int | None
    seconds: float


class Generator:
    """Makes crystals, with the score network or without."""

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        path = weights_file(weights)
        self.device = default_device() if device == "auto" else device
        self.network = load_network(path, device=self.device)
        self.version = weights_version(path)
        self._known_groups: dict[str, list[HostGroup]] = {}

    def generate(
        self, templates: Sequence[Template], settings: GeneratorSettings | Sequence[GeneratorSettings]
    ) -> Generated:
        """Fill the templates, with settings for all or one for each; those with the same settings in one batch."""
        began = time.monotonic()
        each = list(settings) if isinstance(settings, Sequence) else [settings] * len(templates)
        crystals = [template.crystal for template in templates]
        evaluations = [0] * len(templates)
        versions: list[str | None] = [None] * len(templates)
        for one in dict.fromkeys(each):
            places = [place for place, other in enumerate(each) if other == one]
            made, calls, version = self._fill([templates[place] for place in places], one)
            for place, crystal in zip(places, made, strict=True):
                crystals[place], evaluations[place], versions[place] = crystal, calls, version
        return Generated(crystals, evaluations, (time.monotonic() - began) / len(templates), versions)

    def _fill(
        self, templates: Sequence[Template], settings: GeneratorSettings
    ) -> tuple[list[Crystal], int, str | None]:
        """Crystals, calls of the network, version of the network if it took part."""
        if isinstance(settings, ExchangeSettings | MutationSettings):  # the templates are filled already
            return [template.crystal for template in templates], 0, None
        if isinstance(settings, RandomSettings):
            return [_random(template, settings) for template in templates], 0, None
        if isinstance(settings, SymmetricSettings):
            templates = [on_orbits(template, self._groups(template)) for template in templates]
            settings = settings.sampler
        elif isinstance(settings, SubgroupSettings):
            templates = [on_orbits(template, self._groups(template)[1:], settings.descend) for template in templates]
            settings = settings.sampler
        samples = sample(self.network, templates, settings, device=self.device)
        return samples.crystals, samples.evaluations, self.version

    def _groups(self, template: Template) -> list[HostGroup]:
        """Groups of a template's host; remembered, because a host is filled more than once."""
        host = template.crystal.select(~template.guest)
        if host.identity not in self._known_groups:
            if len(self._known_groups) >= REMEMBERED:
                self._known_groups.clear()
            self._known_groups[host.identity] = host_groups(host)
        return self._known_groups[host.identity]


def _random(template: Template, settings: RandomSettings) -> Crystal:
    return random_crystal(template.crystal, template.bravais or "aP", np.random.default_rng(template.seed), settings)


class Relaxer:
    """Screens crystals and relaxes the good ones.

    Args:
        potential: for example ``chgnet-0.3.0``.
        relaxation: settings where a call brings none.
        screening: what is not worth relaxing.
        hull: reduced formula -> eV/atom, from where ``hopeless`` of the settings counts; see `relax`.
    """

    def __init__(
        self,
        potential: str,
        relaxation: RelaxSettings,
        screening: ScreenSettings,
        hull: Mapping[str, float] | None = None,
    ) -> None:
        self.potential = CHGNetPotential(potential.removeprefix("chgnet-"))
        self.relaxation, self.screening, self.hull = relaxation, screening, hull

    def relax(
        self,
        crystals: Sequence[Crystal],
        free: Sequence[np.ndarray] | None = None,
        settings: RelaxSettings | None = None,
        guests: Sequence[np.ndarray | None] | None = None,
    ) -> list[Relaxation | Rejected]:
        """One outcome a crystal, in order.

        The crystals relax together, so each is given its share of the wall time, by orbits of atoms and steps: the
        ``seconds`` of all outcomes add up to what they took.

        Args:
            crystals: as made.
            free: masks (n,) of the atoms that may move, all when left out.
            settings: in place of the relaxer's own.
            guests: masks (n,) of the atoms that were placed into a host, None for other crystals; see
                `model.relaxation.candidate_funnel`.
        """
        began = time.monotonic()
        verdicts = self._screen(crystals)
        places = [index for index, verdict in enumerate(verdicts) if verdict is None]
        masks = None if free is None else [free[index] for index in places]
        placed = None if guests is None else [guests[index] for index in places]
        accepted = [crystals[index] for index in places]
        relaxed = funnel(
            accepted, self.potential, settings or self.relaxation, free=masks, guests=placed, known=self.hull
        )
        work = [outcome.orbits * (outcome.steps + 1) for outcome in relaxed]
        second = (time.monotonic() - began) / max(1, sum(work))
        shared = iter([replace(outcome, seconds=second * n) for outcome, n in zip(relaxed, work, strict=True)])
        return [next(shared) if verdict is None else verdict for verdict in verdicts]

    def _screen(self, crystals: Sequence[Crystal]) -> list[Rejected | None]:
        distinct, places = DistinctCrystals(), []
        verdicts: list[Rejected | None] = []
        for index, crystal in enumerate(crystals):
            reason = screen(crystal, self.screening)
            if reason is not None:
                verdicts.append(Rejected(reason))
                continue
            places.append(index)
            known = distinct.add(crystal)
            verdicts.append(None if known is None else Rejected("duplicate", places[known]))
        return verdicts


class Symmetrizer:
    """Finds space groups, decomposition energies and frameworks of relaxed crystals."""

    def __init__(
        self,
        reference: Reference,
        elements: Sequence[str],
        guests: Sequence[str] | None,
        ladder: Sequence[tuple[float, float]],
        screening: ScreenSettings,
    ) -> None:
        self.stability = Stability(reference, elements)
        self.guests, self.ladder, self.screening = guests, ladder, screening

    def judge(
        self,
        relaxed: Sequence[Relaxation | Rejected],
        take_out: Sequence[Sequence[str] | None],
        found: Mapping[str, float] | None = None,
        highest: float = math.inf,
    ) -> list[Judged | None]:
        """One verdict a crystal, in order; None where there is no relaxed structure.

        Args:
            relaxed: crystals that were made together.
            take_out: a crystal's guests, to be taken out for frameworks; none are named where they are to be chosen;
                None where no frameworks are wanted.
            found: reduced formula -> energy (eV/atom) of phases that join the second hull.
            highest: E_d (eV/atom) above which a crystal gives no frameworks.
        """
        distinct, places = DistinctCrystals(), []
        verdicts: list[Judged | None] = []
        chosen = self._guests(relaxed) if any(names is not None for names in take_out) else []
        hull = self.stability.extended(found or {})
        for index, (outcome, names) in enumerate(zip(relaxed, take_out, strict=True)):
            if isinstance(outcome, Rejected) or not usable(outcome):
                verdicts.append(None)
                continue
            places.append(index)
            known = distinct.add(outcome.final)
            guests = [] if names is None else list(names) or chosen
            verdicts.append(self._judge(outcome, None if known is None else places[known], guests, hull, highest))
        return verdicts

    def _judge(
        self, outcome: Relaxation, duplicate_of: int | None, guests: Sequence[str], hull: Stability, highest: float
    ) -> Judged:
        began = time.monotonic()
        crystal = outcome.final
        decomposition = self.stability.decomposition(crystal.composition, outcome.energy_final)
        e_d_found = hull.decomposition(crystal.composition, outcome.energy_final).e_d
        present = set(crystal.symbols)
        out = [element for element in guests if element in present]
        wanted = duplicate_of is None and 0 < len(out) < len(present) and decomposition.e_d <= highest
        frameworks = extract_frameworks(crystal, out, self.ladder, screening=self.screening) if wanted else []
        return Judged(
            space_group(crystal), decomposition, e_d_found, frameworks, out, duplicate_of, time.monotonic() - began
        )

    def _guests(self, relaxed: Sequence[Relaxation | Rejected]) -> list[str]:
        """The elements to take out: those asked for, or the one whose surroundings vary most in this batch."""
        if self.guests is not None:
            return list(self.guests)
        finals = [outcome.final for outcome in relaxed if isinstance(outcome, Relaxation) and usable(outcome)]
        mixed = [crystal for crystal in finals if len(set(crystal.symbols)) > 1]
        return choose_guest(mixed) if mixed else []
