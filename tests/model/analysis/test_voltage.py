import pytest

from model.analysis.voltage import ion_charge, ion_name, voltage_curve


def test_voltages_are_slopes_of_the_hull():
    """Li in CoO2: -(E(1) - E(0) - E(Li)) = 4 V by hand; a stable phase in the middle makes two steps of it."""
    phases = [("CoO2", -10.0), ("LiCoO2", (-30.0 - 2.0 - 4.0) / 4)]
    (step,) = voltage_curve(phases, "Li", "CoO2", guest_energy=-2.0)
    assert (step.start, step.end, step.phases) == (0, 1, ("CoO2", "LiCoO2"))
    assert step.voltage == pytest.approx(4)
    middle = ("LiCo2O4", (2 * -30.0 - 2.0 - 6.0) / 7)
    steps = voltage_curve([*phases, middle], "Li", "CoO2", guest_energy=-2.0)
    assert [one.voltage for one in steps] == pytest.approx([6, 2])
    assert [one.end for one in steps] == [0.5, 1]
    assert sum((one.end - one.start) * one.voltage for one in steps) == pytest.approx(4)  # work is path-free


def test_unstable_and_foreign_phases_take_no_part():
    phases = [("CoO2", -10.0), ("LiCoO2", -9.0), ("LiCo2O4", -9.0), ("LiCoO2", -8.0), ("Li2O", -20.0), ("Co3O4", -20.0)]
    (step,) = voltage_curve(phases, "Li", "CoO2", guest_energy=-2.0)
    assert step.phases == ("CoO2", "LiCoO2")
    filled = voltage_curve([*phases, ("Li2CoO2", -7.5)], "Li", "CoO2", guest_energy=-2.0)
    assert filled == [step]  # taking up the second Li would cost energy


def test_a_doubly_charged_guest_halves_the_voltage():
    phases = [("MnO2", -8.0), ("MgMn2O4", -8.0)]
    (step,) = voltage_curve(phases, "Mg", "MnO2", guest_energy=-1.5)
    (single,) = voltage_curve(phases, "Mg", "MnO2", guest_energy=-1.5, charge=1)
    assert single.voltage == pytest.approx(2 * step.voltage)
    assert step.voltage == pytest.approx((8.0 * 7 - 8.0 * 6 - 1.5) / 2)


def test_a_host_with_the_guest_in_it_is_refused():
    with pytest.raises(ValueError, match="LiCoO2 contains the guest Li"):
        voltage_curve([], "Li", "LiCoO2", guest_energy=0)
    assert voltage_curve([("MnO2", -8.0)], "Li", "CoO2", guest_energy=0) == []


@pytest.mark.parametrize(
    ("guest", "name"),
    [("Li", "Li+"), ("Na", "Na+"), ("Ag", "Ag+"), ("Cu", "Cu+"), ("Mg", "Mg2+"), ("Zn", "Zn2+"), ("Fe", "Fe2+"),
     ("Mn", "Mn2+"), ("V", "V3+"), ("Cr", "Cr3+"), ("Al", "Al3+"), ("H", "H+"), ("F", "F-"), ("S", "S2-")],
)  # fmt: skip
def test_the_usual_charge_of_a_guest_is_that_of_its_ion_in_a_host(guest, name):
    assert ion_name(guest, ion_charge(guest)) == name


def test_copper_in_a_sulphide_takes_one_electron():
    phases = [("TiS2", -6.0), ("CuTiS2", -5.5)]
    (step,) = voltage_curve(phases, "Cu", "TiS2", guest_energy=-3.5)
    assert step.voltage == pytest.approx(-(4 * -5.5 - 3 * -6.0 + 3.5))


def test_a_charge_that_is_no_charge_is_refused():
    with pytest.raises(ValueError, match="must not be 0"):
        voltage_curve([], "Li", "CoO2", guest_energy=0, charge=0)
    with pytest.raises(ValueError, match="Ar has no usual ionic charge: give it with --charge"):
        ion_charge("Ar")
