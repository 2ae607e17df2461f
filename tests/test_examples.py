"""The commands of the pages about examples, in small form, and what the benchmarks put into these pages."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Structure
from typer.testing import CliRunner

from search.cli import app
from search.storage.crystal_files import read_host

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pymatgen on the digits of CIFs
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def hostguide(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def script(path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_crystals_are_those_of_the_script(tmp_path, monkeypatch):
    build = script(EXAMPLES / "build.py")
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path)])
    build.main()
    made = sorted(tmp_path.rglob("*.cif"))
    assert len(made) == 3
    for path in made:
        committed = EXAMPLES / path.relative_to(tmp_path)
        one, other = read_host(path), read_host(committed)
        assert one.symbols == other.symbols
        np.testing.assert_allclose(one.fractional, other.fractional, atol=1e-6)
        np.testing.assert_allclose(one.lattice, other.lattice, atol=1e-5)


def test_the_interface_is_oxide_and_metal_at_their_distances():
    crystal = Structure.from_file(EXAMPLES / "interface" / "Li-Li2O.cif")
    for site in crystal:
        if site.specie.symbol == "O":
            neighbours = [n.nn_distance for n in crystal.get_neighbors(site, 2.2)]
            assert neighbours == pytest.approx([4.619 * 3**0.5 / 4] * 8, abs=1e-3)  # antifluorite
    assert crystal.distance_matrix[np.triu_indices(len(crystal), 1)].min() > 1.9


def test_the_table_of_mno2_goes_between_the_marks(tmp_path):
    mno2 = script(ROOT / "benchmarks" / "cases" / "mno2.py")
    page, folder = tmp_path / "page.md", tmp_path / "results"
    (tmp_path / "images").mkdir()
    folder.mkdir()
    for kind in mno2.KINDS:
        (folder / f"mno2-{kind}.png").write_bytes(kind.encode())
    (folder / "table.md").write_text("| new |\n")
    page.write_text(f"before\n{mno2.MARKS[0]}\n| old |\n{mno2.MARKS[1]}\nafter\n")
    mno2.into_page(folder, page)
    assert page.read_text() == f"before\n{mno2.MARKS[0]}\n\n| new |\n\n{mno2.MARKS[1]}\nafter\n"
    assert (tmp_path / "images" / "mno2-full.png").read_bytes() == b"full"
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"page\.md lacks the lines"):
        mno2.into_page(folder, page)
    assert all(mark in (ROOT / "docs" / "mno2.md").read_text() for mark in mno2.MARKS)


def test_the_verdict_on_mno2_counts_what_is_as_low_and_names_what_is_not():
    mno2 = script(ROOT / "benchmarks" / "cases" / "mno2.py")

    def case(guest, inpainted, *others):
        ways = {name: {"fixed": {"energy": energy}} for name, energy in zip("ab", others, strict=False)}
        ways["inpainted"] = {"fixed": {"energy": inpainted}}
        return {"polymorph": "alpha", "guest": guest, "formula": guest, "ways": ways}

    cases = [case("H", -1.0, -1.0005), case("Li", -1.0, -1.01, -0.9), case("Zn", -1.0, -0.9, -0.8)]
    assert [round(mno2.against(one, "fixed"), 3) for one in cases] == [0.5, 10.0, -100.0]
    assert "lower in 2 of 3 cases, lower in 1; above it in α-Li (+10.0)." in mno2.verdict(cases, "fixed")


@pytest.mark.slow
def test_zinc_in_layered_mno2_is_in_the_tetrahedron(tmp_path):
    hostguide(
        "inpaint",
        EXAMPLES / "mno2" / "delta.cif",
        "--guest",
        "Zn",
        "--count",
        1,
        "--samples",
        4,
        "--fix-host",
        "--refine",
        1,
        "--out",
        tmp_path / "out",
    )
    crystal = Structure.from_file(next((tmp_path / "out").glob("01_*.cif")))
    (zinc,) = [site for site in crystal if site.specie.symbol == "Zn"]
    assert sum(n.specie.symbol == "O" for n in crystal.get_neighbors(zinc, 2.2)) == 4


@pytest.mark.slow
def test_lithium_in_lanthanum_chloride_is_on_the_axis_and_moves_along_it(tmp_path):
    hostguide(
        "inpaint",
        EXAMPLES / "superionic" / "LaCl3.cif",
        "--guest",
        "Li",
        "--count",
        1,
        "--samples",
        2,
        "--fix-host",
        "--out",
        tmp_path / "out",
    )
    (path,) = (tmp_path / "out").glob("01_*.cif")
    crystal = read_host(path)
    (lithium,) = crystal.fractional[crystal.numbers == 3]
    assert lithium[:2] - np.round(lithium[:2]) == pytest.approx([0, 0], abs=0.01)
    assert 2 * lithium[2] - np.round(2 * lithium[2]) == pytest.approx(0, abs=0.02)
    text = hostguide(
        "analyse",
        path,
        "--guest",
        "Li",
        "--equal-sites",
        "--barriers",
        "--single",
        "--height",
        4,
        "--out",
        tmp_path / "a",
    )
    assert "1D along [001] with hops of 2.19 Å" in text
    assert "1D with barriers up to 0.0" in text
    assert (tmp_path / "a" / "barriers.png").is_file()


@pytest.mark.slow
def test_atoms_at_an_interface_are_placed_again(tmp_path):
    hostguide(
        "inpaint",
        EXAMPLES / "interface" / "Li-Li2O.cif",
        "--region",
        "0.28:0.63",
        "--samples",
        3,
        "--refine",
        1,
        "--out",
        tmp_path / "out",
    )
    energies = [float(path.stem.split("_")[-1].removesuffix("meV")) for path in sorted((tmp_path / "out").iterdir())]
    assert energies
    assert energies == sorted(energies)
    assert read_host(next((tmp_path / "out").glob("01_*.cif"))).composition.reduced_formula == "Li13O3"


@pytest.mark.slow
def test_silver_iodide_is_ordered(tmp_path):
    """α-AgI, Im-3m: Ag on a sixth of the tetrahedra."""
    places = [[0, 0, 0], [0.25, 0, 0.5]]
    lattice = [[5.062, 0, 0], [0, 5.062, 0], [0, 0, 5.062]]
    Structure.from_spacegroup("Im-3m", lattice, [{"I": 1}, {"Ag": 1 / 6}], places).to(tmp_path / "AgI.cif")
    text = hostguide("inpaint", tmp_path / "AgI.cif", "--samples", 2, "--out", tmp_path / "out")
    assert "12 partially occupied sites; 66 arrangements of Ag2I2" in text
    assert len(list((tmp_path / "out").glob("*.cif"))) == 2


def test_the_hosts_that_the_benchmark_builds_have_their_group_and_their_bonds():
    hosts = script(ROOT / "benchmarks" / "cases" / "hosts.py")
    built = {name: hosts.BUILT[name](None) for name in ("spinel", "Prussian white")}
    groups = {name: structure.get_space_group_info(0.01)[0] for name, structure in built.items()}
    assert groups == {"spinel": "Fd-3m", "Prussian white": "R-3"}
    assert dict(built["Prussian white"].composition.get_el_amt_dict()) == {"Na": 6, "Mn": 3, "Fe": 3, "C": 18, "N": 18}

    def bonds(structure, one, other, limit):
        near = [structure.get_neighbors(site, limit) for site in structure if site.specie.symbol == one]
        return [[n.nn_distance for n in some if n.specie.symbol == other] for some in near]

    assert bonds(built["spinel"], "Mn", "O", 2.5) == [pytest.approx([1.96] * 6, abs=0.01)] * 16
    assert bonds(built["Prussian white"], "Mn", "N", 2.5) == [pytest.approx([2.16] * 6, abs=0.01)] * 3
    assert bonds(built["Prussian white"], "Fe", "C", 2.5) == [pytest.approx([1.92] * 6, abs=0.01)] * 3
