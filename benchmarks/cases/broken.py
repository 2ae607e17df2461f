"""Perturbed and broken crystals through the relaxer: no crash, no hang, and a reason for each.

    python -m benchmarks.cases.broken --count 10000 --json broken.json

Ten kinds of crystals alternate; number i is always the same crystal. The file is written after every 50 crystals; rerun
the same command to resume. In ``summary``, ``crashes`` counts exceptions, ``contradictions`` inconsistent results (a
converged one with large forces, a usable one without an energy, a failed one without a reason), and ``hangs`` those
that exceeded their time limit by more than half a minute.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before anything below loads a thread pool

import argparse
import json
from pathlib import Path

import torch

from model.potentials.chgnet.potential import CHGNetPotential
from tests.support.broken import advance, new_record, summarise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = json.loads(args.json.read_text()) if args.json.exists() else new_record()
    potential = CHGNetPotential()
    while record["done"] < args.count:
        advance(record, args.count, potential)
        record["summary"] = summarise(record)
        temporary = args.json.with_suffix(".part")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(args.json)
        print(f"{record['done']} of {args.count}", flush=True)
    print(json.dumps(record["summary"], indent=1))
    raise SystemExit(any(record["summary"][key] for key in ("crashes", "contradictions", "hangs")))


if __name__ == "__main__":
    main()
