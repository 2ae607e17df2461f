"""`hostguide inpaint` on files: what is printed and which CIFs are written."""

from collections import Counter

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from model.crystals.crystal import Crystal
from search.commands.crystals.inpaint import inpaint
from search.storage.crystal_files import read_host


@pytest.fixture
def host(host_file):
    return read_host(host_file)


@pytest.fixture
def slab(licoo2):
    """Four layers of LiCoO2 along c, 16 atoms."""
    return Crystal.from_pymatgen(licoo2.to_pymatgen() * [1, 1, 4])


@pytest.fixture
def inpainted(capsys):
    """A function that puts one Li into a host, unless told otherwise, and returns what the command printed."""

    def called(host, out, **options):
        guests = {} if "region" in options else {"guest": ["Li"], "count": ["1"]}
        inpaint(host, **{**guests, "samples": 4, **options}, out=out)
        return capsys.readouterr().out

    return called


@pytest.mark.parametrize("fix_host", [False, True])
def test_every_atom_is_in_the_cif(host_file, host, inpainted, tmp_path, fix_host):
    text = inpainted(host_file, tmp_path / "out", fix_host=fix_host)
    paths = sorted((tmp_path / "out").glob("*.cif"))
    assert paths
    assert f"CIFs of these {len(paths)} crystals: {tmp_path / 'out'}" in text
    for position, path in enumerate(paths, start=1):
        made = Crystal.from_pymatgen(Structure.from_file(path))
        assert Counter(made.symbols) == {"Co": 1, "O": 2, "Li": 1}
        assert path.name.startswith(f"{position:02d}_LiCoO2_")
        assert path.name in text
        if fix_host:
            assert made.volume == pytest.approx(host.volume, rel=1e-6)
            assert distances(made.select(made.numbers != 3)) == pytest.approx(distances(host), abs=1e-4)


def distances(crystal):
    return np.sort(crystal.to_pymatgen().distance_matrix, axis=None)


def test_a_region_and_rounds_on_the_command_line(slab, inpainted, tmp_path):
    slab.to_pymatgen().to(tmp_path / "slab.cif")
    out = tmp_path / "out"
    text = inpainted(tmp_path / "slab.cif", out, fix_host=True, samples=6, region="0.35:0.4", refine=1)
    assert "placing 1 Li, 6 times; rounds of refinement: 1" in text
    made = [Crystal.from_pymatgen(Structure.from_file(path)) for path in out.glob("*.cif")]
    assert made
    assert all(Counter(one.symbols) == Counter(slab.symbols) for one in made)
    for bad in ("0.45", "a:b", "1:2:3"):
        with pytest.raises(ValueError, match=f"--region needs two fractions of c, for example 0.4:0.6, got '{bad}'"):
            inpainted(tmp_path / "slab.cif", out, region=bad)


def test_a_host_without_room_is_told(tmp_path, inpainted):
    path = tmp_path / "iron.cif"
    Structure(Lattice.cubic(2.4), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(path)
    with pytest.raises(ValueError, match=r"no arrangement survived .*too_close.*fewer guests or more --samples"):
        inpainted(path, tmp_path / "out", samples=2)
    assert not (tmp_path / "out").exists()


# --- partially occupied sites -------------------------------------------------------------------------------------


@pytest.fixture
def half_filled(tmp_path, licoo2):
    """Layered LiCoO2 with every second Li missing, in a doubled cell."""
    structure = licoo2.to_pymatgen() * [2, 1, 1]
    structure.replace_species({"Li": {"Li": 0.5}})
    path = tmp_path / "half.cif"
    structure.to(path)
    return path


@pytest.fixture
def ordered(capsys):
    """A function that orders the sites of a host and returns what the command printed."""

    def called(path, out, **options):
        inpaint(path, samples=4, fix_host=True, out=out, **options)
        return capsys.readouterr().out

    return called


def test_partially_occupied_sites_are_ordered(half_filled, ordered, tmp_path):
    text = ordered(half_filled, tmp_path / "out")
    assert "2 partially occupied sites; 2 arrangements of Li1O4Co2" in text
    (path,) = (tmp_path / "out").glob("*.cif")  # the two arrangements are one by symmetry
    assert Counter(site.specie.symbol for site in Structure.from_file(path)) == {"Li": 1, "Co": 2, "O": 4}


def test_a_larger_cell_has_more_arrangements(half_filled, ordered, tmp_path):
    text = ordered(half_filled, tmp_path / "out", supercell=(1, 2, 1))
    assert "4 partially occupied sites; 6 arrangements of Li2O8Co4" in text
    energies = [float(path.stem.split("_")[-1].removesuffix("meV")) for path in sorted((tmp_path / "out").iterdir())]
    assert len(energies) > 1
    assert energies == sorted(energies)
    assert energies[0] == 0


def test_an_element_that_rounds_to_none_is_told(ordered, tmp_path):
    path = tmp_path / "doped.cif"
    Structure(Lattice.cubic(4.2), [{"Na": 0.8, "K": 0.2}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).to(path)
    with pytest.raises(
        ValueError, match=r"the cell contains 0\.20 K, which rounds to zero atoms: give a larger --supercell"
    ):
        ordered(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_host_and_a_strange_supercell_are_told(half_filled, host_file, ordered, tmp_path):
    with pytest.raises(ValueError, match=r"CoO2\.cif has no partially occupied sites: give --guest and --count"):
        ordered(host_file, tmp_path / "out")
    with pytest.raises(ValueError, match=r"three numbers of at least 1, got 1 0 1"):
        ordered(half_filled, tmp_path / "out", supercell=(1, 0, 1))


@pytest.mark.parametrize(
    ("guest", "said"),
    [
        ("Am", r"chgnet-0.3.0 does not know Am: .* up to Pu, without Po, At, Rn, Fr, Ra"),
        ("Po", "does not know Po"),
        ("Xx", "--guest 'Xx' is not an element"),
    ],
)
def test_guests_that_the_potential_does_not_know_are_told_before_any_work(guest, said, host_file, inpainted, tmp_path):
    with pytest.raises(ValueError, match=said):
        inpainted(host_file, tmp_path / "out", guest=[guest])
    assert not (tmp_path / "out").exists()
