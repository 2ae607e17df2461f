"""The packaged structure types and vectors of elements, as model/data has them.

    python benchmarks/structure_types.py structures.parquet --without cspbench.csv

The types are those of the packaged library of known phases. The elements are learnt from the split `train` of the
structures file, the one of docs/training.md, without the formulas of the table given by --without: what predicts the
crystals of other splits, and of that table, has never seen them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ase.data import chemical_symbols, covalent_radii
from pymatgen.core import Composition, Element, Lattice

from model.crystals.parquet import read_crystals
from model.generation.structure_types import (
    CLASSES,
    HEAVIEST,
    PACKAGED_ELEMENTS,
    PACKAGED_TYPES,
    Family,
    StructureTypes,
    TypeCollector,
)
from model.library.phases import PACKAGED, packaged_library

ELECTRONEGATIVITY = np.array([0.0, *(Element.from_Z(z).data.get("X") or 2.0 for z in range(1, HEAVIEST + 1))])
DIMENSIONS = 12
PAIRS = 40  # of each type, whose volumes are compared
CHUNK = 5000
STEPS, QUERIES, SAMPLE = 800, 12, 400  # of learning; compounds asked for, and compared with, of one family and step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures", type=Path)
    parser.add_argument("--without", type=Path, help="CSV with the column pretty_formula")
    parser.add_argument("--types", action="store_true", help="make the types, too; otherwise only the elements")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.types:
        collect_types(arguments.structures)
    frame = pd.read_parquet(arguments.structures, columns=["material_id", "formula", "split", "cell"])
    hidden = set(frame["material_id"][frame["split"] != "train"])
    if arguments.without:
        names = {Composition(one).reduced_formula for one in pd.read_csv(arguments.without)["pretty_formula"]}
        hidden |= set(frame["material_id"][frame["formula"].isin(names)])
    families = training_families(hidden)
    cells = [Lattice.from_parameters(*cell).volume for cell in frame["cell"]]
    volume = dict(zip(frame["material_id"], cells, strict=True))
    vectors, volumes = learn(families), element_volumes(families, volume)
    table = pd.DataFrame(np.round(vectors, 3)[1:], columns=[f"x{i}" for i in range(vectors.shape[1])])
    for name, row in zip(("volume_oxide", "volume_salt", "volume_metal"), volumes[::-1], strict=True):
        table.insert(0, name, np.round(row[1:], 2))
    table.insert(0, "electronegativity", ELECTRONEGATIVITY[1:])
    table.insert(0, "element", chemical_symbols[1 : HEAVIEST + 1])
    table.to_csv(PACKAGED_ELEMENTS, index=False)


def collect_types(structures: Path) -> None:
    """Write the type of every phase of the library that has two to six elements and at most 200 atoms."""
    phases = pd.read_parquet(PACKAGED, columns=["material_id", "system", "n_atoms", "space_group", "e_above_hull"])
    phases = phases[(phases["n_atoms"] <= 200) & phases["system"].str.count("-").between(1, 5)]
    phases = phases.sort_values(["e_above_hull", "material_id"])
    frame = pd.read_parquet(structures, columns=["material_id", "cell", "atomic_numbers", "frac_coords"])
    frame = frame.set_index("material_id").loc[phases["material_id"]]
    collector, rows = TypeCollector(), list[dict[str, object]]()
    for start in range(0, len(frame), CHUNK):
        some = phases.iloc[start : start + CHUNK]
        crystals = read_crystals(frame.iloc[start : start + CHUNK])
        for name, group, crystal in zip(some["material_id"], some["space_group"], crystals, strict=True):
            rows.append({"material_id": name, **collector.add(crystal, group)})
        print(f"{len(rows)} of {len(frame)} phases, {collector.count} types", flush=True)
    schema = pa.schema(
        {
            "material_id": pa.string(),
            "counts": pa.string(),
            "type": pa.int32(),
            "elements": pa.list_(pa.uint8()),
            "twins": pa.list_(pa.uint16()),
        }
    )
    rows.sort(key=lambda row: (str(row["counts"]), row["type"]))
    pq.write_table(pa.Table.from_pylist(rows, schema), PACKAGED_TYPES, compression="zstd", compression_level=19)


def training_families(hidden: set[str]) -> list[Family]:
    """The phases with types, in families, without hidden ones."""
    types = StructureTypes(packaged_library())
    labels = pq.read_table(PACKAGED_TYPES, columns=["counts"])["counts"].unique().to_pylist()
    found = [types.family([int(n) for n in one.split("-")]) for one in labels]
    families = [_without(one, hidden) for one in found if one is not None and len(one.orders) <= 24]
    return [one for one in families if len(one.names) > 3]


def _without(family: Family, hidden: set[str]) -> Family:
    kept = np.array([name not in hidden for name in family.names])
    return replace(family, names=family.names[kept], types=family.types[kept], elements=family.elements[kept])


def learn(families: Sequence[Family]) -> np.ndarray:
    """(104, D) vectors of the elements, by atomic number."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    share = np.array([min(len(one.names), SAMPLE) for one in families], dtype=float)
    vectors = torch.tensor(_first_guess(), requires_grad=True)
    optimizer = torch.optim.Adam([vectors], lr=0.02)
    losses: list[float] = []
    for step in range(STEPS):
        terms = [_surprise(families[i], vectors, rng) for i in rng.choice(len(families), 8, p=share / share.sum())]
        loss = torch.cat(terms).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 100 == 99:
            print(f"step {step + 1}: −ln p of the right type {np.mean(losses[-100:]):.3f}", flush=True)
    return vectors.detach().numpy()


def _first_guess() -> np.ndarray:
    """Electronegativity, radius, place in the periodic table; the other dimensions nearly empty."""
    known = np.zeros((HEAVIEST + 1, 6))
    for z in range(1, HEAVIEST + 1):
        e = Element.from_Z(z)
        known[z] = [
            2 * ELECTRONEGATIVITY[z],
            4 * covalent_radii[z],
            e.group / 4,
            e.row,
            "spdf".index(e.block),
            min(e.group, 10) / 3,
        ]
    known -= known[1:97].mean(0)
    rest = 0.05 * np.random.default_rng(0).normal(size=(HEAVIEST + 1, DIMENSIONS - 6))
    return np.concatenate([0.7 * known, rest], axis=1)


def _surprise(family: Family, vectors: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(Q,) −ln of the likelihood of the right types of some compounds, given others that share no chemical system."""
    some = rng.permutation(len(family.names))[:SAMPLE]
    asked = some[:QUERIES]
    target, known = family.elements[asked][:, family.orders], family.elements[some]
    unlike = (vectors[target][:, :, None] - vectors[known]).square().sum((-1, -2))  # (Q, P, M)
    twins = [{tuple(way) for way in family.twins[t]} for t in family.types[asked]]
    right = np.array([[tuple(way) in own for way in family.orders] for own in twins])[:, :, None]
    right = right & (family.types[asked][:, None] == family.types[some])[:, None]
    system = np.sort(family.elements, axis=1)
    other = (system[asked][:, None] != system[some]).any(-1)[:, None]
    likelihoods = torch.where(torch.from_numpy(other), -unlike, -torch.inf).flatten(1)
    right = torch.from_numpy(right & other).flatten(1)
    has = right.any(1)
    return (likelihoods.logsumexp(1) - likelihoods.masked_fill(~right, -torch.inf).logsumexp(1))[has]


def element_volumes(families: Sequence[Family], volume: Mapping[str, float]) -> np.ndarray:
    """(3, 104) volumes of the elements such that their sums explain the ratios of the volumes within each type."""
    rng = np.random.default_rng(0)
    some, others, ratios = [], [], []
    for family in families:
        for number in np.unique(family.types):
            members = np.flatnonzero(family.types == number)
            for one, other in rng.choice(members, (min(len(members), PAIRS), 2)) if len(members) > 1 else ():
                some.append(_content(family, one))
                others.append(_content(family, other))
                ratios.append(np.log(volume[family.names[one]] / volume[family.names[other]]))
    left, right, wanted = (torch.tensor(np.array(rows)) for rows in (some, others, ratios))
    common = torch.full((HEAVIEST + 1,), 2.5, dtype=torch.float64, requires_grad=True)
    apart = torch.zeros((3, HEAVIEST + 1), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([common, apart], max_iter=300)

    def off() -> torch.Tensor:
        volumes = (common + apart).exp().flatten()
        return (left @ volumes).log() - (right @ volumes).log() - wanted

    def misfit() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.huber_loss(off(), torch.zeros_like(wanted), delta=0.1)
        loss = loss + 1e-6 * (common - 2.5).square().sum() + 1e-6 * apart.square().sum()
        loss.backward()
        return loss

    optimizer.step(misfit)
    error = off().detach().abs()
    print(
        f"{len(wanted)} pairs of one type: error of the volume {error.median():.3f}, 90 % to {error.quantile(0.9):.3f}"
    )
    return (common + apart).exp().detach().numpy()


def _content(family: Family, member: int) -> np.ndarray:
    """(3 · 104,) share of each element in the atoms of a phase, in the class of its bonding."""
    atoms = np.zeros((3, HEAVIEST + 1))
    elements = family.elements[member]
    np.add.at(atoms[np.searchsorted(CLASSES, ELECTRONEGATIVITY[elements].max())], elements, family.counts)
    return atoms.ravel() / atoms.sum()


if __name__ == "__main__":
    main()
