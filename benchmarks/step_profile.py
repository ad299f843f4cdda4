"""Where the time of a training step goes: torch's profiler, the operations that take most of it.

python benchmarks/step_profile.py --items 20108 --items-per-user 73
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from coterie.lab.bench.turns import random_histories
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.running.execution import Execution
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20108)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--items-per-user", type=int, default=73)
    parser.add_argument("--pia", type=float, default=0.0)
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--shown", type=int, default=12)
    args = parser.parse_args()
    rows = SparseRows.from_csr(random_histories(args.batch, args.items, args.items_per_user))
    step = TrainingStep(
        args.items,
        MultVAEConfig(pia=args.pia),
        execution=Execution("cpu", precision=args.precision),
    )
    for _ in range(3):
        step(rows)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(args.steps):
            step(rows)
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shown = [
        [
            event.key[:40],
            f"{event.self_cpu_time_total / 1000 / args.steps:.1f}",
            f"{event.self_cpu_time_total / total:.0%}",
        ]
        for event in events[: args.shown]
    ]
    print(f"{total / 1000 / args.steps:.0f} ms a step, {torch.get_num_threads()} threads")
    print(plain_table(["operation", "ms a step", "share"], shown, [False, True, True]))


if __name__ == "__main__":
    main()
