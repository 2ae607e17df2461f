from dataclasses import replace

import numpy as np
import pytest
from pymatgen.io.cif import CifWriter

from model.crystals.composition import CellFormula, from_system
from model.crystals.crystal import Crystal
from model.crystals.matching import distance_fingerprints
from model.generation.framework import Framework, extract_frameworks
from model.generation.wyckoff_placement import host_groups
from model.symmetry.space_group import SpaceGroup
from search.planning.frameworks import FrameworkPool, KnownFramework, fillings, frameworks_from_files
from search.storage.rows import StoredFramework
from tests.support.crystals import rattled
from tests.support.rows import row_with


@pytest.fixture(scope="module")
def layered(licoo2):
    """One record each of the R-3m CoO2 host, found in two differently distorted crystals."""
    records = []
    for seed in range(2):
        found = extract_frameworks(rattled(licoo2, width=0.02, seed=seed), ["Li"])
        host = next(framework for framework in found if framework.space_group.number == 166)
        records.append(StoredFramework.of(f"layered-{seed}", host))
    return records


def cubic(identity, edge):
    host = Crystal(np.eye(3) * edge, [[0, 0, 0]], [14])
    group = SpaceGroup(221, "Pm-3m", 0.1, 10.0)
    (fingerprint,) = distance_fingerprints([host])
    framework = Framework(
        host=host, guests={"Li": 1}, space_group=group, displacement=0.0, cell_ratio=1, fingerprint=fingerprint
    )
    return StoredFramework.of(identity, framework)


def row(candidate, e_d, *found):
    return row_with(candidate=candidate, e_d=e_d, bravais_lattice="cP", frameworks=list(found) or None)


def pool_of(*rows, volume_change=0.05):
    pool = FrameworkPool(volume_change)
    pool.read(rows)
    return pool


def test_a_crystal_without_frameworks_adds_none():
    assert not pool_of(row("a", 0.1)).known


def test_a_framework_found_twice_is_one_and_keeps_its_best_parent(layered):
    first, second = layered
    assert first.host != second.host
    pool = pool_of(row("a", 0.3, first), row("b", -0.2, second))
    assert list(pool.known) == ["layered-0"]
    assert pool.known["layered-0"].parent == "a"
    assert pool.known["layered-0"].parent_e_d == -0.2


def test_another_space_group_is_another_framework(layered):
    first, second = layered
    other = replace(second, framework="other", space_group_number=12)
    assert list(pool_of(row("a", 0.3, first, other)).known) == ["layered-0", "other"]


def test_one_host_found_with_two_fillings_knows_both(layered):
    first, second = layered
    pool = pool_of(row("a", 0.3, first), row("b", 0.1, replace(second, guests={"Li": 2})))
    assert pool.known["layered-0"].guests == [(("Li", 1),), (("Li", 2),)]


def test_what_cannot_come_among_those_that_are_filled_is_passed_over():
    pool = FrameworkPool(0.05, size=2)
    pool.read([row("a", 0.3, cubic("f", 3.0)), row("b", 0.2, cubic("g", 3.5))])
    pool.read([row("c", 0.4, cubic("h", 4.0)), row("d", 0.3, cubic("i", 4.5)), row("e", 0.1, cubic("j", 5.0))])
    assert list(pool.known) == ["f", "g", "i", "j"]
    assert [framework.name for framework in pool.best()] == ["j", "g"]
    everything = pool_of(row("c", 0.4, cubic("h", 4.0)), row("d", 0.3, cubic("i", 4.5)))
    assert [framework.name for framework in everything.best()] == ["i", "h"]


def test_a_host_from_a_file_stays_in_the_pool_when_a_poor_crystal_has_it():
    pool = FrameworkPool(0.05, [replace(cubic("file", 3.0), guests={})], size=2)
    pool.read([row("a", 0.9, cubic("f", 3.01)), row("b", 0.1, cubic("g", 4.0), cubic("h", 5.0))])
    assert [framework.name for framework in pool.best()] == ["file", "g"]
    assert pool.known["file"].parent_e_d == 0.9


@pytest.mark.parametrize(("edge", "names"), [(3.02, ["f"]), (3.1, ["f", "g"])])
def test_a_host_that_grew_further_than_the_limit_is_another(edge, names):
    assert list(pool_of(row("a", 0.1, cubic("f", 3.0)), row("b", 0.1, cubic("g", edge))).known) == names


def test_maps_read_from_disk_as_pairs_are_understood():
    record = cubic("f", 3.0).record | {"guests": [("Li", 1)]}
    assert pool_of(row("a", 0.1, StoredFramework.from_record(record))).known["f"].guests == [(("Li", 1),)]


# --- fillings -----------------------------------------------------------------------------------------------------


def found(guests, candidate="a"):
    framework = KnownFramework.of(cubic("f", 3.0), candidate and row(candidate, 0.1))
    framework.guests += [tuple(guests.items())] if guests else []
    return framework


@pytest.mark.parametrize(("count_range", "counts"), [(0, [2]), (1, [2, 1, 3]), (9, [2, 1, 3, 4])])
def test_guest_counts_are_swept_round_what_was_found(count_range, counts):
    cells = from_system("Li-Si", max_atoms=5)
    assert [dict(one)["Li"] for one in fillings(found({"Li": 2}), cells, ["Li"], count_range)] == counts


def test_only_cells_that_are_searched_and_only_guests_are_thought_of():
    cells = [CellFormula.parse(formula) for formula in ("Li3Si", "LiNaSi", "Li2Si2", "Si", "LiNa")]
    assert list(fillings(found({"Li": 2}), cells, ["Li"], 1)) == [(("Li", 2),), (("Li", 3),)]
    assert (("Li", 1), ("Na", 1)) in fillings(found({"Li": 1}), cells, ["Li", "Na"], 1)


@pytest.mark.parametrize("seen", [{}, {"Li": 1, "Na": 1}], ids=["new", "seen in a crystal"])
def test_a_host_from_a_file_takes_every_filling_that_is_searched(seen):
    cells = from_system("Li-Na-Si", max_atoms=4)
    several = list(fillings(found(seen, candidate=None), cells, ["Li", "Na"], 0))
    assert [dict(guests) for guests in several] == [
        {"Li": 1, "Na": 1},
        {"Li": 1, "Na": 2},
        {"Li": 2, "Na": 1},
    ]


# --- files --------------------------------------------------------------------------------------------------------


def test_hosts_come_from_files_and_folders_in_their_primitive_cells(tmp_path, licoo2):
    host = licoo2.select(np.array(licoo2.symbols) != "Li").to_pymatgen()
    CifWriter(host.make_supercell([2, 1, 1], in_place=False)).write_file(tmp_path / "coo2.cif")
    (from_folder,) = frameworks_from_files([tmp_path])
    (from_file,) = frameworks_from_files([tmp_path / "coo2.cif"])
    assert from_folder == from_file
    assert len(from_folder.host.crystal) == 3
    assert from_folder.space_group_number == 166
    (known,) = FrameworkPool(0.05, [from_folder]).known.values()
    assert known.host.identity == from_folder.host.crystal.identity
    assert known.parent is None and known.parent_e_d is None and known.guests == []


def test_rounded_coordinates_in_a_file_do_not_lose_the_symmetry(tmp_path, licoo2):
    host = licoo2.select(np.array(licoo2.symbols) != "Li")
    host.replace(fractional=np.round(host.fractional, 3)).to_pymatgen().to(tmp_path / "coo2.vasp", fmt="poscar")
    (record,) = frameworks_from_files([tmp_path / "coo2.vasp"])
    (largest, *_) = host_groups(record.host.crystal)
    assert largest.number == record.space_group_number == 166
    assert 0 <= record.displacement < 0.01


def test_a_folder_without_hosts_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        frameworks_from_files([tmp_path])
    with pytest.raises(ValueError, match=r"gone\.cif does not exist"):
        frameworks_from_files([tmp_path / "gone.cif"])
