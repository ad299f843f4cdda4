"""Writes the measured figures into docs/performance.md, from what the other benchmarks left as
JSON.

    python benchmarks/performance_page.py bench docs/performance.md

Each table of the page stands between two comments, ``<!-- NAME -->`` and ``<!-- /NAME -->``, and is
written anew from ``bench/NAME.json``; a figure that was not measured stays as it is. The tables are
printed, too.
"""

import argparse
import datetime
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from coterie.files import publish_file

Figures: TypeAlias = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)
    )


def machine(_: Figures) -> str:
    """Where and when the page was written."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, no GPU,"
        f" {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."
    )


def steps(figures: Figures) -> str:
    """`coterie bench training-step`, with PIA, and with products in bfloat16."""
    runs = {
        "float32": figures["step"],
        "with PIA": figures["step-pia"],
        "bf16": figures["step-bf16"],
    }
    rows = []
    for name in ("coterie", "dense", "products", "aligned products"):
        cells = [
            f"{1000 * run['median_seconds'][name]:.0f} ms"
            f" ({run['users'] / run['median_seconds'][name]:,.0f})"
            for run in runs.values()
        ]
        rows.append([name, *cells])
    for ratio in ("ratio_to_products", "ratio_to_aligned_products", "ratio_to_dense"):
        rows.append([ratio, *(f"**{run[ratio]:.2f}**" for run in runs.values())])
    return markdown(["median (users/s)", *runs], rows)


def scoring(figures: Figures) -> str:
    """`coterie bench scoring` at several sizes of the catalogue."""
    rows = []
    for name in sorted(
        (name for name in figures if re.fullmatch(r"scoring-\d+[km]", name)),
        key=lambda name: int(figures[name]["items"]),
    ):
        run = figures[name]
        median = run["median_seconds"]
        ease = f"{run['users'] / median['ease']:,.0f}" if "ease" in median else "-"
        product, users = (
            f"{run['users'] / median['product']:,.0f}",
            f"{run['users_per_second']:,.0f}",
        )
        ratios = [
            f"{run[ratio]:.2f}"
            for ratio in (
                "ratio_to_product",
                "ratio_to_aligned_product",
                "ratio_of_evaluation",
                "ratio_of_ids",
            )
        ]
        rows.append([f"{run['items']:,}", run["shape"], users, product, *ratios, ease])
    return markdown(
        [
            "items",
            "shape",
            "users/s",
            "product alone",
            "over product",
            "over aligned product",
            "evaluation over scoring",
            "with ids",
            "EASE, users/s",
        ],
        rows,
    )


def serving(figures: Figures) -> str:
    """`coterie bench serving`."""
    run, alone = figures["serving"], ("product", "one user", "32 users")
    rows = [
        [name, *(f"{run[f'p{p}_ms'][name]:.1f}" for p in (50, 99))]
        for name in (*alone, *(f"{name} from 8 threads" for name in alone[1:]))
    ]
    ratio = ["one user over product", f"**{run['ratio_to_product']:.2f}**", ""]
    return markdown(["", "p50, ms", "p99, ms"], [*rows, ratio])


def rivals(figures: Figures) -> str:
    """Every shape of benchmarks/rivals.py."""
    rows = []
    for shape, run in figures["rivals"]["shapes"].items():
        for name, one in run["rivals"].items():
            if "failed" in one:
                rows.append([shape, name, f"failed: {one['failed']}", "", "", ""])
                continue
            cells = [f"{one['users_per_second']:,.0f}", f"{one['time_over_coterie']:.2f}"]
            rows.append(
                [shape, name, *cells, f"{one['peak_mib']:,.0f}", f"{one['loading_peak_mib']:,.0f}"]
            )
    return markdown(
        ["shape", "who", "users/s", "time over Coterie's", "peak MiB", "MiB while loading"], rows
    )


def quality(figures: Figures) -> str:
    """benchmarks/time_to_quality.py on every data set."""
    rows = []
    for run in (figures[name] for name in sorted(figures) if name.startswith("quality-")):
        for name, one in run["rivals"].items():
            row = [Path(run["data"]).name, name]
            if "failed" in one:
                rows.append([*row, f"failed: {one['failed']}", *[""] * 4])
                continue
            row += [f"{one['best']:.4f}", one["stopped"], f"{one['seconds']:.1f}"]
            never = one["ratio"] is None
            row += ["never", ""] if never else [f"{one['coterie_seconds']:.1f}"]
            rows.append(row if never else [*row, f"**{one['ratio']:.2f}**"])
    header = ["data", "who", "best NDCG@100", "stopped by", "s to 99 % of it", "Coterie, s"]
    return markdown([*header, "times as fast"], rows)


def goals(figures: Figures) -> Iterator[list[str]]:
    """Goal, figure and whether it was met."""

    def told(
        goal: str, value: float, limit: float, *, above: bool = False, form: str = ".2f"
    ) -> list[str]:
        return [goal, f"{value:{form}}", yes(value >= limit if above else value <= limit)]

    if "step" in figures:
        yield told(
            "training step over the three decoder products, ML-20M shape, ≤ 1.35",
            figures["step"]["ratio_to_products"],
            1.35,
        )
        yield told(
            "training users/s over the dense step, ML-20M shape, ≥ 2.5",
            1 / figures["step"]["ratio_to_dense"],
            2.5,
            above=True,
        )
    if "rivals" in figures:
        for shape in ("ml-1m", "gowalla", "ml-20m"):
            others = figures["rivals"]["shapes"].get(shape, {}).get("rivals", {})
            over = {
                name: one["time_over_coterie"]
                for name, one in others.items()
                if name in ("recbole", "irspack", "cornac") and "failed" not in one
            }
            if over:
                fastest = min(over, key=lambda name: over[name])
                yield told(
                    f"training users/s over the fastest rival ({fastest}), {shape}, ≥ 3",
                    over[fastest],
                    3,
                    above=True,
                )
                if "failed" not in others.get("coterie bf16", {"failed": "not there"}):
                    gain = over[fastest] / others["coterie bf16"]["time_over_coterie"]
                    yield told(
                        f"— the same with our products in bf16, {shape}", gain, 3, above=True
                    )
    if "scoring-20k" in figures:
        yield told(
            "top-100 over the single product, 20 k items, ≤ 1.3",
            figures["scoring-20k"]["ratio_to_product"],
            1.3,
        )
        yield told(
            "evaluation over scoring, 20 k items, ≤ 1.3",
            figures["scoring-20k"]["ratio_of_evaluation"],
            1.3,
        )
    if "serving" in figures:
        yield told(
            "one user's list over product and selection, 20 k items, ≤ 2",
            figures["serving"]["ratio_to_product"],
            2,
        )
    if "scoring-memory" in figures:
        for form in ("lists", "data set", "pairs"):
            few, many = (
                run["peak_mib"] for run in figures["scoring-memory"] if run["histories"] == form
            )
            yield [
                f"memory of scoring with users × 10, {form}: same ± 10 %",
                f"{few:.0f} → {many:.0f} MiB",
                yes(abs(many / few - 1) <= 0.1),
            ]
    if "training-memory" in figures:
        for mode in figures["training-memory"]["modes"]:
            peak = mode["runs"][-1]["peak_bytes"] / 2**30
            yield [
                f"1,000,000 items train in 8 GiB: {mode_name(mode)}",
                f"{peak:.2f} GiB",
                yes(peak <= 8),
            ]
    yield [
        "ML-20M epoch ≤ 0.5 s and ≥ 1 M users/s scored on an H200",
        "not measured: none at hand",
        "**no**",
    ]


def yes(met: bool) -> str:
    """For the last column."""
    return "yes" if met else "**no**"


def mode_name(mode: Figures) -> str:
    """A way of training."""
    return f"{mode['name']}, PIA {mode['pia']}" if mode["pia"] else str(mode["name"])


def training_memory(figures: Figures) -> str:
    """benchmarks/training_memory.py."""
    rows = []
    for mode in figures["training-memory"]["modes"]:
        run, tried = mode["runs"][-1], mode["tried"]
        seconds = sorted(run["step_seconds"][1:])[len(run["step_seconds"][1:]) // 2]
        cells = [f"{run['peak_bytes'] / 2**30:.2f}", f"{seconds:.2f}", f"{mode['largest_items']:,}"]
        rows.append(
            [mode_name(mode), *cells, f"{tried['items']:,}: {tried['peak_bytes'] / 2**30:.2f}"]
        )
    items = figures["training-memory"]["modes"][0]["runs"][-1]["items"]
    table = markdown(
        [
            "way",
            f"{items:,} items, peak GiB",
            "s a step",
            "largest catalogue in 8 GiB (fitted)",
            "really tried: peak GiB",
        ],
        rows,
    )
    steps = {
        name: run["peak_bytes"] / 2**20 for name, run in figures["training-memory"]["steps"].items()
    }
    return (
        table
        + "\n\nAt MovieLens-20M's shape: "
        + ", ".join(f"{name} {peak:,.0f} MiB" for name, peak in steps.items())
        + "."
    )


def scoring_memory(figures: Figures) -> str:
    """benchmarks/scoring_memory.py."""
    rows = [
        [run["histories"], f"{run['users']:,}", f"{run['peak_mib']:,.0f}", f"{run['seconds']:.0f}"]
        for run in figures["scoring-memory"]
    ]
    return markdown(["histories", "users", "peak MiB", "seconds"], rows)


def million(figures: Figures) -> str:
    """benchmarks/million_users.py."""
    run, rows = figures["million"], []
    for number, one in enumerate(run["runs"], 1):
        end = "killed" if one["status"] else "complete"
        rows.append(
            [
                str(number),
                f"{one['seconds']:.0f}",
                f"{one['peak_mib']:,.0f}",
                str(one["shards"]),
                end,
            ]
        )
    seconds, found = sum(one["seconds"] for one in run["runs"]), run["found"]
    summary = (
        f"{found['users']:,} users found, each in {found['files_a_user']} file, with"
        f" {found['rows']:,} rows; "
    )
    summary += (
        f"{found['users_with_broken_lists']} lists with a gap or a repetition. In all {seconds:.0f}"
        " s, four starts and lost work included: "
    )
    summary += f"{found['users'] / seconds:,.0f} users/s."
    table = markdown(["start", "seconds", "peak MiB", "finished shards", "end"], rows)
    return f"{table}\n\n{textwrap.fill(summary, 100)}"


def growth(figures: Figures) -> str:
    """benchmarks/growth.py."""
    rows = []
    for variable, kinds in figures["growth"]["curves"].items():
        for kind, curve in kinds.items():
            sizes, medians = (
                ", ".join(f"{value:,.0f}" for value in values)
                for values in (curve["sizes"], [1000 * s for s in curve["median_seconds"]])
            )
            rows.append(
                [
                    variable.replace("_", " "),
                    kind,
                    sizes,
                    medians,
                    f"{curve['exponent']['whole']:.2f}",
                    f"{curve['exponent']['upper']:.2f}",
                ]
            )
    return markdown(["variable", "of", "sizes", "ms", "exponent", "upper sizes"], rows)


def approximate(figures: Figures) -> str:
    """benchmarks/approximate_search.py."""
    run = figures["approximate"]
    exact = run["settings"][0]["users_per_second"]
    rows = [
        [
            str(one["setting"]),
            f"{one['users_per_second']:,.0f}",
            f"{one['users_per_second'] / exact:.1f}",
            f"{one['recall']:.3f}",
        ]
        for one in run["settings"]
    ]
    return markdown(
        [
            f"{run['items']:,} items × {run['dim']}",
            "users a processor second",
            "× exact",
            "recall@100",
        ],
        rows,
    )


def preparing(figures: Figures) -> str:
    """benchmarks/prepare_growth.py."""
    rows = []
    for size in figures["prepare"]["sizes"]:
        made = [f"{size['n_rows']:,}", f"{size['csv_bytes'] / 2**20:.0f} MiB"]
        rows.append(
            [
                *made,
                *(
                    cell
                    for one in ("generate", "prepare")
                    for cell in (
                        f"{size[one]['seconds']:.1f} s",
                        f"{size[one]['peak_bytes'] / 2**20:,.0f} MiB",
                    )
                ),
            ]
        )
    return markdown(["rows", "CSV", "simulated in", "peak", "prepared in", "peak"], rows)


def goal_table(figures: Figures) -> str:
    """All goals of the engine."""
    return markdown(["goal", "measured", "met"], list(goals(figures)))


TABLES: dict[str, tuple[Callable[[Figures], str], tuple[str, ...]]] = {
    "machine": (machine, ()),
    "goals": (goal_table, ("step",)),
    "step": (steps, ("step", "step-pia", "step-bf16")),
    "scoring": (scoring, ("scoring-20k",)),
    "serving": (serving, ("serving",)),
    "rivals": (rivals, ("rivals",)),
    "quality": (quality, ("quality-ml-1m",)),
    "training-memory": (training_memory, ("training-memory",)),
    "scoring-memory": (scoring_memory, ("scoring-memory",)),
    "million": (million, ("million",)),
    "growth": (growth, ("growth",)),
    "approximate": (approximate, ("approximate",)),
    "prepare": (preparing, ("prepare",)),
}
"""What each table is made by, and the measurements without which it stays as it is."""


def main() -> None:
    """Fills in the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="folder of JSON files")
    parser.add_argument("page", type=Path)
    args = parser.parse_args()
    figures = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(args.figures.glob("*.json"))
    }
    page = args.page.read_text(encoding="utf-8")
    for name, (table, needed) in TABLES.items():
        if all(one in figures for one in needed):
            text = table(figures)
            print(f"\n{name}\n\n{text}")
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            if not pattern.search(page):
                raise SystemExit(
                    f"{args.page}: must hold <!-- {name} --> and <!-- /{name} -->; add them where"
                    " the table belongs."
                )
            page = pattern.sub(lambda found, text=text: found[1] + text + "\n" + found[2], page)  # type: ignore[misc]
    with publish_file(args.page) as aside:
        aside.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
