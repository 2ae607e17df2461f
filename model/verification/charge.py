"""Whether the charges of a crystal balance: oxidation states, or the name of the bonding that has none.

Oxidation states of cations are pymatgen's: the common ones of each element first, then those observed in the ICSD,
then, for transition metals up to Cu, all. Of several sets that balance, the one that agrees best with the bond valences
is taken (M. O'Keeffe and N. E. Brese, J. Am. Chem. Soc. 113, 3226 (1991)).

Anions have closed shells, 8 − N electrons more than the atom; each bond to an atom of the same element saves one: −2
for an oxide, −1 for a peroxide, −1 for S in pyrite, and nothing but bonds in a Zintl phase. The bonds come from the
crystal, so that BaO2 is balanced as a peroxide and rock-salt LiO is not balanced at all. Bond orders of C, N and O
follow from lengths by L. Pauling, J. Am. Chem. Soc. 69, 542 (1947).

Own code because `Composition.oxi_state_guesses` and SMACT know the formula only, mix any states of any element, and
say nothing where states do not balance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from pymatgen.analysis.bond_valence import BV_PARAMS, calculate_bv_sum
from pymatgen.core import Element

from model.crystals.crystal import Crystal

BOND = 1.2  # times the sum of covalent radii: longest bond between atoms of one element
SINGLE = {6: 1.52, 7: 1.42, 8: 1.48}  # Å, single bonds of C, N and O, the elements that make multiple ones
PAULING = 0.71  # Å per decade of bond order
CLOSE = 1e-3  # charges per formula unit that count as zero
BONDS_MATCH = 0.5  # bonds per atom by which a Zintl phase may miss the 8 − N rule
COST = (0.0, 0.5, 2.0)  # of an atom's states that are common, observed in the ICSD, or merely known
KEPT = 0.5  # the same of a cation whose bonds to its own element do not count, since they may be contacts
TRIVALENT = ("Sc", "Y", "La", "Ce", "Pr", "Pm", "Gd", "Tb", "Ho", "Er", "Lu")  # 2+ in metals and clusters only
METALLIC = ("H", "B", "C", "N", "P", "Te")  # which make metallic compounds with metals
NEAR = 4.0  # Å, atoms whose bond valences are summed


# Cost, states, and the element of mixed valence with its two states.
_Solution = tuple[float, dict[str, float], tuple[str, float, float]]


class Balance(StrEnum):
    """How the charges of a crystal balance."""

    ELEMENT = "element"
    BALANCED = "balanced"
    MIXED = "mixed valence"
    BONDED = "bonded anions"  # peroxides, polysulphides, azides and the like
    ZINTL = "Zintl phase"
    INTERMETALLIC = "intermetallic"
    METALLIC = "metallic compound"  # carbides, nitrides and the like with bonds between their metal atoms
    NONE = "not balanced"


@dataclass(frozen=True, kw_only=True)
class ChargeBalance:
    """The oxidation states of a crystal.

    Attributes:
        kind: how its charges balance.
        states: element -> mean oxidation state; empty where there are none.
        text: the same in words.
        bonds: element -> mean order of all bonds of an atom to others of its element; only where there are any.
    """

    kind: Balance
    states: Mapping[str, float]
    text: str
    bonds: Mapping[str, float] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong with the charges; bonding without oxidation states is not wrong."""
        return self.kind is not Balance.NONE


def charge_balance(crystal: Crystal) -> ChargeBalance:
    """Find oxidation states that balance, or say why there are none.

    >>> salt = Crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
    >>> charge_balance(salt).text
    'balanced: Na+ Cl−'
    >>> charge_balance(salt.replace(numbers=[12, 17])).text
    'not balanced: no states of Mg, Cl add up to zero'
    """
    counts = {str(e): int(n) for e, n in crystal.composition.get_reduced_composition_and_factor()[0].items()}
    if len(counts) == 1:
        return ChargeBalance(kind=Balance.ELEMENT, states={}, text="an element")
    bonds = homonuclear_bonds(crystal)
    if found := list(_balanced(counts, bonds)):
        return _told(_likeliest(found, counts, crystal)[1], bonds)
    if mixed := list(_mixed(counts, bonds)):
        _, states, (element, low, high) = _likeliest(mixed, counts, crystal)
        text = f"mixed valence: {element}{_charge(low)} and {element}{_charge(high)} in {_listed(states)}"
        return ChargeBalance(kind=Balance.MIXED, states=states, text=text, bonds=bonds)
    return _without_states(counts, bonds)


def homonuclear_bonds(crystal: Crystal) -> dict[str, float]:
    """Element -> mean order of all bonds of an atom to others of its element, for p elements that have such bonds."""
    wanted = [symbol for symbol in dict.fromkeys(crystal.symbols) if _is_p(symbol)]
    radii = {symbol: covalent_radii[atomic_numbers[symbol]] for symbol in wanted}
    longest = 2 * BOND * max(radii.values(), default=0.0)
    found = {}
    for symbol in wanted:
        sites = crystal.select(crystal.numbers == atomic_numbers[symbol])
        distances = sites.to_pymatgen().get_neighbor_list(longest, exclude_self=True)[3]
        near = distances[distances < 2 * BOND * radii[symbol]]
        total = sum(_bond_order(symbol, length) for length in near.tolist()) / len(sites)
        if total:
            found[symbol] = total
    return found


def _bond_order(symbol: str, length: float) -> float:
    single = SINGLE.get(atomic_numbers[symbol])
    if single is None:
        return 1.0
    return float(np.clip(np.rint(2 * 10 ** ((single - length) / PAULING)) / 2, 1, 3))


def _is_p(symbol: str) -> bool:
    return Element(symbol).block == "p" and Element(symbol).group < 18


def _closed_shell(element: Element) -> int | None:
    """The charge that fills the valence shell of an anion; None for elements that make none."""
    if element.symbol == "H":
        return -1
    fills = element.block == "p" and 14 <= element.group <= 17
    return element.group - 18 if fills else None


def _states(symbol: str, bonds: Mapping[str, float]) -> dict[float, float]:
    """Oxidation state -> cost. Each bond between atoms of the element brings its states one nearer to zero."""
    element, own = Element(symbol), bonds.get(symbol, 0.0)
    observed = [s for s in element.icsd_oxidation_states if s != 2 or symbol not in TRIVALENT]
    tiers = [element.common_oxidation_states, observed]
    if element.is_transition_metal and 4 <= element.group <= 11:
        tiers.append(element.oxidation_states)
    costs: dict[float, float] = {}
    for tier, cost in zip(tiers, COST, strict=False):
        for state in sorted(tier):
            if state > own:
                costs.setdefault(state - own, cost)
            if state > 0:
                costs.setdefault(float(state), cost + KEPT)
    closed = _closed_shell(element)
    if closed is not None and closed + own < 0:
        costs[closed + own] = 0.0
    return costs


def _likeliest(found: list[_Solution], counts: Mapping[str, int], crystal: Crystal) -> _Solution:
    """The set of states that is most common and agrees best with the bond valences."""
    if len(found) == 1:
        return found[0]
    sums = valence_sums(crystal)

    def misfit(one: _Solution) -> float:
        return one[0] + sum(counts[s] * abs(abs(state) - abs(sums.get(s, state))) for s, state in one[1].items())

    return min(found, key=misfit)


def valence_sums(crystal: Crystal) -> dict[str, float]:
    """Element -> mean sum of the valences of its bonds; elements without parameters are left out."""
    structure = crystal.to_pymatgen()
    if any(element not in BV_PARAMS for element in structure.composition):
        return {}
    neighbours = structure.get_all_neighbors(NEAR)
    sums = [calculate_bv_sum(site, near) for site, near in zip(structure, neighbours, strict=True)]
    symbols = np.array(crystal.symbols)
    return {symbol: float(np.mean(np.array(sums)[symbols == symbol])) for symbol in dict.fromkeys(crystal.symbols)}


def _balanced(counts: Mapping[str, int], bonds: Mapping[str, float]) -> Iterator[_Solution]:
    """All sets of states, one for each element, that add up to zero, with what they cost."""
    for cost, states in _assignments(counts, bonds, list(counts)):
        if abs(sum(counts[symbol] * state for symbol, state in states.items())) < CLOSE and _ordered(states):
            yield cost, states, ("", 0.0, 0.0)


def _mixed(counts: Mapping[str, int], bonds: Mapping[str, float]) -> Iterator[_Solution]:
    """The same where one element takes two of its positive states; which element, and the two states."""
    for symbol in counts:
        if not _mixes(symbol):
            continue
        own = dict(sorted((s, cost) for s, cost in _states(symbol, bonds).items() if s > 0))
        for cost, states in _assignments(counts, bonds, [other for other in counts if other != symbol]):
            mean = -sum(counts[other] * state for other, state in states.items()) / counts[symbol]
            low = max((s for s in own if s < mean), default=None)
            high = min((s for s in own if s > mean), default=None)
            if low is not None and high is not None and _ordered(whole := {**states, symbol: mean}):
                yield cost + own[low] + own[high], whole, (symbol, low, high)


def _assignments(
    counts: Mapping[str, int], bonds: Mapping[str, float], symbols: list[str]
) -> Iterator[tuple[float, dict[str, float]]]:
    if not symbols:
        yield 0.0, {}
        return
    for cost, states in _assignments(counts, bonds, symbols[:-1]):
        for state, more in _states(symbols[-1], bonds).items():
            yield cost + more * counts[symbols[-1]], {**states, symbols[-1]: state}


def _mixes(symbol: str) -> bool:
    """Whether an element is known with two oxidation states in one crystal: d and f elements, and those below Zn."""
    element = Element(symbol)
    return element.block in "df" or symbol in ("Ga", "In", "Tl", "Sn", "Pb", "Sb", "Bi")


def _ordered(states: Mapping[str, float]) -> bool:
    """Whether the anions are more electronegative than every cation, and different enough from the metals among them.

    Carbides, silicides and the like of transition metals share their electrons: they have no oxidation states.
    """
    cations = [Element(symbol) for symbol, state in states.items() if state > 0]
    anions = [Element(symbol) for symbol, state in states.items() if state < 0]
    if not (cations and anions) or max(e.X for e in cations) >= min(e.X for e in anions):
        return False
    metallic = any(e.is_transition_metal and 4 <= e.group <= 10 for e in cations)
    return not (metallic and any(e.group in (13, 14) for e in anions))


def _told(states: dict[str, float], bonds: Mapping[str, float]) -> ChargeBalance:
    anions = {symbol: bonds[symbol] for symbol in states if states[symbol] < 0 and symbol in bonds}
    if not anions:
        return ChargeBalance(kind=Balance.BALANCED, states=states, text=f"balanced: {_listed(states)}", bonds=bonds)
    names = " and ".join(_name(symbol, states[symbol]) for symbol in anions)
    text = f"{names}: {_listed(states)}"
    kind = Balance.ZINTL if all(Element(symbol).group <= 15 for symbol in anions) else Balance.BONDED
    return ChargeBalance(kind=kind, states=states, text=text, bonds=bonds)


def _name(symbol: str, state: float) -> str:
    if symbol == "O":
        return "peroxide" if abs(state + 1) < 0.25 else "superoxide" if abs(state + 0.5) < 0.2 else "partly a peroxide"
    if symbol == "N" and abs(state + 1 / 3) < 0.1:
        return "azide"
    if Element(symbol).group <= 15 and symbol not in "CN":
        return f"Zintl phase, {symbol} bonded to {symbol}"
    return f"{symbol} bonded to {symbol}"


def _without_states(counts: Mapping[str, int], bonds: Mapping[str, float]) -> ChargeBalance:
    elements = {symbol: Element(symbol) for symbol in counts}
    metals = [symbol for symbol, e in elements.items() if e.is_metal]
    others = [symbol for symbol in counts if symbol not in metals]
    givers = [s for s, e in elements.items() if (e.block == "s" and s != "H") or e.group == 3 or e.is_rare_earth]
    takers = [symbol for symbol in counts if symbol not in givers]
    count, matches = _electron_count(counts, givers, takers, bonds)
    if matches:
        return ChargeBalance(kind=Balance.ZINTL, states={}, text=f"Zintl phase: {count}", bonds=bonds)
    if all(elements[symbol].is_metalloid and symbol not in METALLIC for symbol in others):
        text = count or f"no oxidation states of {', '.join(counts)}"
        return ChargeBalance(kind=Balance.INTERMETALLIC, states={}, text=f"intermetallic: {text}", bonds=bonds)
    if metals and all(elements[symbol].is_metalloid or symbol in METALLIC for symbol in others):
        text = f"metallic compound of {', '.join(metals)} with {', '.join(others)}: no oxidation states"
        return ChargeBalance(kind=Balance.METALLIC, states={}, text=text, bonds=bonds)
    text = f"not balanced: no states of {', '.join(counts)} add up to zero"
    return ChargeBalance(kind=Balance.NONE, states={}, text=text, bonds=bonds)


def _electron_count(
    counts: Mapping[str, int], givers: list[str], takers: list[str], bonds: Mapping[str, float]
) -> tuple[str, bool]:
    """What the 8 − N rule says of the atoms that take electrons, and whether they have about that many bonds.

    Empty where the rule does not apply: to crystals without electropositive metals, or with others that take electrons.
    """
    if not givers or not takers or any(not _is_p(s) or s in "BCN" or Element(s).group > 15 for s in takers):
        return "", False
    given = sum(counts[s] * max(Element(s).common_oxidation_states) for s in givers)
    atoms = sum(counts[s] for s in takers)
    asked = (sum(counts[s] * (18 - Element(s).group) for s in takers) - given) / atoms
    found = sum(counts[s] * bonds.get(s, 0.0) for s in takers) / atoms
    names = ", ".join(takers)
    if asked < 0:
        text = f"{-asked:.1f} electrons too many for each {names} atom by the 8 − N rule"
        return text, asked > -BONDS_MATCH and found < BONDS_MATCH
    text = f"the 8 − N rule asks for {asked:.1f} bonds of each {names} atom, it has {found:.1f}"
    return text, abs(found - asked) <= BONDS_MATCH


def _listed(states: Mapping[str, float]) -> str:
    return " ".join(f"{symbol}{_charge(states[symbol])}" for symbol in sorted(states, key=lambda s: Element(s).X))


def _charge(state: float) -> str:
    sign, size = "+" if state > 0 else "−", abs(state)
    number = f"{size:.0f}" if abs(size - round(size)) < CLOSE else f"{size:.2f}"
    return sign if number == "1" else f"{number}{sign}"
