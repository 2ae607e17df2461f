"""ASE calculators by import path: what is called, what is refused, and what the messages say."""

from __future__ import annotations

import pickle
import sys
from types import ModuleType

import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones
from pydantic import ValidationError

from model.crystals.crystal import Crystal
from model.potentials.ase import load_calculator, require_complete
from model.potentials.calculators import CalculatorSettings
from model.potentials.catalog import comparable_with, find_entry, load_potential, why_not_comparable

COPPER = Crystal.from_ase(bulk("Cu", a=3.6))


def settings(calculator: str, energies: str = "own", **more) -> CalculatorSettings:
    return CalculatorSettings(calculator=calculator, energies=energies, **more)


class WithoutStress(Calculator):
    """Energy and forces only, as many calculators have them."""

    implemented_properties = ("energy", "forces")

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.scale, "forces": 0 * self.atoms.positions}


def make_lennard_jones(epsilon: float = 1.0) -> LennardJones:
    return LennardJones(epsilon=epsilon)


@pytest.fixture
def own_module(monkeypatch) -> str:
    """A module of the user's own, of no package."""
    module = ModuleType("my_calculators")
    module.WithoutStress, module.make_lennard_jones = WithoutStress, make_lennard_jones
    monkeypatch.setitem(sys.modules, "my_calculators", module)
    return "my_calculators"


def test_a_calculator_gives_its_own_numbers() -> None:
    from ase.calculators.emt import EMT

    potential = load_potential(settings("ase.calculators.emt.EMT"))
    atoms = COPPER.to_ase()
    atoms.calc = EMT()
    assert potential.evaluate([COPPER])[0].energy == pytest.approx(atoms.get_potential_energy())


@pytest.mark.parametrize(
    ("calculator", "arguments", "label"),
    [
        ("mace.calculators.mace_mp", {"model": "medium-mpa-0", "dispersion": False}, None),
        ("nequip.ase.NequIPCalculator.from_compiled_model", {"compile_path": "x.pt2"}, None),
        ("ase.calculators.emt.EMT", {}, "my-emt"),
    ],
)
def test_its_name_says_what_it_is(calculator, arguments, label) -> None:
    known = {
        "mace.calculators.mace_mp": "mace_mp(dispersion=false, model=medium-mpa-0)",
        "nequip.ase.NequIPCalculator.from_compiled_model": "NequIPCalculator.from_compiled_model(compile_path=x.pt2)",
    }
    assert settings(calculator, arguments=arguments, name=label).label == (label or known[calculator])


def test_its_version_changes_with_arguments_and_with_files_that_they_name(tmp_path) -> None:
    weights = tmp_path / "weights"
    versions = set()
    for content, scale in (("a", 1.0), ("b", 1.0), ("b", 2.0)):
        weights.write_text(content)
        arguments = {"asap_cutoff": scale, "restart": None, "label": str(weights)}
        versions.add(load_calculator(settings("ase.calculators.emt.EMT", arguments=arguments, name="emt")).version)
    assert len(versions) == 3


@pytest.mark.parametrize(
    ("calculator", "arguments", "words"),
    [
        ("mace.calculators.mace_mp", {}, ["no module 'mace'", "pip install mace-torch"]),
        ("some_potential.Calc", {}, ["no module 'some_potential'", "pip install some_potential"]),
        ("ase.calculators.emt.Emt", {}, ["does not exist", "ase.calculators.emt of ase", "'Emt'"]),
        ("ase.calculators.nothing.X", {}, ["does not exist", "'nothing'"]),
        (
            "chgnet.model.dynamics.CHGNetCalculator",
            {"modle": 1},
            ["does not accept the arguments modle; it takes"],
        ),
        ("os.system", {"command": "exit 1"}, ["os.system makes no ASE calculator"]),
        ("ase.io.read", {"filename": "x"}, ["ase.io.read makes no ASE calculator"]),
        ("pandas.read_pickle", {"filepath_or_buffer": "x"}, ["pandas.read_pickle makes no ASE calculator"]),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_remedy(calculator, arguments, words) -> None:
    with pytest.raises(ValueError, match=r"models\.potential: ") as caught:
        load_potential(settings(calculator, arguments=arguments))
    for word in words:
        assert word in str(caught.value)


def test_a_function_of_no_package_is_not_called(own_module) -> None:
    with pytest.raises(ValueError, match="makes no ASE calculator"):
        load_potential(settings(f"{own_module}.make_lennard_jones"))


def test_what_a_relaxation_needs_is_checked_before_it(own_module) -> None:
    with pytest.raises(ValueError, match=r"gives no stress, without which no cell can be relaxed"):
        require_complete(load_potential(settings(f"{own_module}.WithoutStress")), ["Cu"])
    emt = load_potential(settings("ase.calculators.emt.EMT"))
    require_complete(emt, ["Cu", "Au"])
    with pytest.raises(ValueError, match=r"EMT\(\) cannot compute Li .*leave the element out"):
        require_complete(emt, ["Cu", "Li"])


@pytest.mark.parametrize("path", ["emt", "ase..EMT", "ase.calculators.emt.EMT()", "", "a.b c"])
def test_what_is_no_import_path_is_refused(path) -> None:
    with pytest.raises(ValidationError, match="must be an import path such as"):
        settings(path)


def test_settings_reach_other_processes() -> None:
    before = settings("ase.calculators.emt.EMT", arguments={"asap_cutoff": True}, name="emt")
    assert pickle.loads(pickle.dumps(before)) == before
    assert CalculatorSettings.model_validate(before.model_dump(mode="json")) == before


def test_energies_compare_with_their_own_hull_and_level_only() -> None:
    raw = settings("ase.calculators.emt.EMT", "GGA", name="emt")
    assert comparable_with(raw) == ("emt", "MP2020-corrected PBE")
    assert comparable_with(settings("ase.calculators.emt.EMT", name="emt")) == ("emt",)
    assert comparable_with("chgnet-0.3.0") == ("chgnet-0.3.0", "MP2020-corrected PBE")
    assert not why_not_comparable(raw, "emt")
    assert "use a reference computed with emt or" in why_not_comparable(raw, "chgnet-0.3.0")
    assert "MaterialsProject2020Compatibility" in why_not_comparable("chgnet-0.3.0", "GGA")


def test_the_name_of_another_potential_is_taken() -> None:
    with pytest.raises(ValueError, match=r"chgnet-0\.3\.0 is the name of another potential"):
        find_entry(settings("ase.calculators.emt.EMT", name="chgnet-0.3.0"))
