"""Ablation from the papers' method to ours, one step at a time, on the reconstruction benchmark.

    python benchmarks/ladder.py --data structures.parquet --out runs/ladder [--minutes 10] [--limit 25]

Three small networks of the same shape are trained with `configs/train/ladder/*.yaml`: one without the noise level as
input, on crystals with all atoms noised; one with the noise level as input; and one that also gets which atoms belong
to the host. Each step of the ablation is one of them with a sampler. Trainings, cases of the benchmark and results are
stored; rerun the same command to resume. The papers' samplers use 60 levels here instead of 200, and one corrector step
instead of five.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.diffusion.train import Trainer
from search.commands.models.benchmark import reconstruct
from search.studies.training import load_training

CONFIGS = Path(__file__).parents[1] / "configs" / "train" / "ladder"
SHORT = "steps=60,correctors=1,snr=0.2,resamples=2,sigma_min=0.01,sigma_max=5"
RUNGS = (  # name, training, method, figure
    ("the papers' way, as published", "blind", f"published:{SHORT}", "raw_match"),
    ("correct re-noising", "blind", f"predictor-corrector:{SHORT}", "raw_match"),
    ("told the noise level", "noise", f"predictor-corrector:{SHORT}", "raw_match"),
    ("told the hosts, guests only noised", "masks", "ancestral:temperature=1", "raw_match"),
    ("Heun", "masks", "heun", "raw_match"),
    ("ancestral at low temperature", "masks", "ancestral", "raw_match"),
    ("best of k", "masks", "ancestral", "ranked_match"),
    ("best of k, every other symmetric", "masks", "mixed+ancestral", "ranked_match"),
)


def trained(console: Console, name: str, data: Path, out: Path, *, steps: int | None, seconds: float) -> Path | None:
    """Weights of a training; None if it does not finish in time."""
    settings = load_training(CONFIGS / f"{name}.yaml")
    changes = {"data": settings.data.model_copy(update={"path": str(data)})}
    if steps is not None:
        changes |= {"steps": steps}
    settings = settings.model_copy(update=changes)
    trainer = Trainer(settings, out / name)
    if trainer.step < settings.steps:
        console.print(f"training {name} from step {trainer.step} of {settings.steps}")
        trainer.run(
            lambda record: console.print(f"  step {record['step']}  {record['validation']:.4f}"), seconds=seconds
        )
    return out / name / "weights.safetensors" if trainer.step == settings.steps else None


def main() -> None:
    """Run the missing trainings and cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=25, help="crystals a guest")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, help="of each training, in place of the configuration's")
    parser.add_argument("--minutes", type=float, default=1e9, help="of training in this call, each network")
    options = parser.parse_args()
    console, found = Console(), {}
    for name in dict.fromkeys(rung[1] for rung in RUNGS):
        weights = trained(console, name, options.data, options.out, steps=options.steps, seconds=60 * options.minutes)
        if weights is None:
            console.print(f"{name} is not finished. Rerun the same command to resume.")
            return
        results = options.out / f"{name}.json"
        reconstruct(
            options.data,
            split=options.split,
            limit=options.limit,
            method=list(dict.fromkeys(rung[2] for rung in RUNGS if rung[1] == name)),
            samples=options.samples,
            rank=any(rung[1] == name and rung[3] == "ranked_match" for rung in RUNGS),
            weights=str(weights),
            json_file=results,
        )
        found[name] = json.loads(results.read_text())
    ladder = []
    for title, name, method, figure in RUNGS:
        summary = found[name]["methods"][method]["summary"]
        cost = {key: summary[key] for key in ("evaluations", "seconds_per_sample")}
        ladder.append({"rung": title, "method": method, "match": summary[figure], "of": figure, **cost})
    table = Table("rung", "match", "evaluations", "seconds a sample")
    for row in ladder:
        table.add_row(
            row["rung"], f"{row['match']:.3f}", f"{row['evaluations']:.0f}", f"{row['seconds_per_sample']:.2f}"
        )
    console.print(table)
    (options.out / "ladder.json").write_text(json.dumps({"summary": ladder}, indent=2) + "\n")


if __name__ == "__main__":
    main()
