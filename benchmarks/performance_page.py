"""Writes the measured figures into docs/performance.md, from what the other benchmarks left as JSON.

    python benchmarks/performance_page.py bench docs/performance.md

Each table of the page stands between two comments, ``<!-- NAME -->`` and ``<!-- /NAME -->``, and is written anew from
``bench/NAME.json``; a figure that was not measured stays as it is. The tables are printed, too.
"""

import argparse
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from coterie.files import publish_file

Figures: TypeAlias = Mapping[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def machine(_: Figures) -> str:
    """Where and when the page was written."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GiB, no GPU, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}."


def steps(figures: Figures) -> str:
    """`coterie bench training-step`, without and with PIA."""
    runs = {"without PIA": figures["step"], "with PIA": figures["step-pia"]}
    rows = []
    for name in ("coterie", "dense", "products", "aligned products"):
        cells = [
            f"{1000 * run['median_seconds'][name]:.0f} ms ({run['users'] / run['median_seconds'][name]:,.0f})" for run in runs.values()
        ]
        rows.append([name, *cells])
    for ratio in ("ratio_to_products", "ratio_to_aligned_products", "ratio_to_dense"):
        rows.append([ratio, *(f"**{run[ratio]:.2f}**" for run in runs.values())])
    return markdown(["median (users/s)", *runs], rows)


def scoring(figures: Figures) -> str:
    """`coterie bench scoring` at several sizes of the catalogue."""
    rows = []
    for name in sorted((name for name in figures if name.startswith("scoring-")), key=lambda name: int(figures[name]["items"])):
        run = figures[name]
        median = run["median_seconds"]
        ease = f"{run['users'] / median['ease']:,.0f}" if "ease" in median else "-"
        product, users = f"{run['users'] / median['product']:,.0f}", f"{run['users_per_second']:,.0f}"
        ratios = [f"{run[ratio]:.2f}" for ratio in ("ratio_to_product", "ratio_of_evaluation", "ratio_of_ids")]
        rows.append([f"{run['items']:,}", run["shape"], users, product, *ratios, ease])
    return markdown(
        ["items", "shape", "users/s", "product alone", "over product", "evaluation over scoring", "with ids", "EASE, users/s"], rows
    )


def rivals(figures: Figures) -> str:
    """Every shape of benchmarks/rivals.py."""
    rows = []
    for shape, run in figures["rivals"]["shapes"].items():
        for name, one in run["rivals"].items():
            if "failed" in one:
                rows.append([shape, name, f"failed: {one['failed']}", "", "", ""])
                continue
            cells = [f"{one['users_per_second']:,.0f}", f"{one['time_over_coterie']:.2f}"]
            rows.append([shape, name, *cells, f"{one['peak_mib']:,.0f}", f"{one['loading_peak_mib']:,.0f}"])
    return markdown(["shape", "who", "users/s", "time over Coterie's", "peak MiB", "MiB while loading"], rows)


def goals(figures: Figures) -> Iterator[list[str]]:
    """Goal, figure and whether it was met."""

    def told(goal: str, value: float, limit: float, *, above: bool = False, form: str = ".2f") -> list[str]:
        return [goal, f"{value:{form}}", "yes" if (value >= limit) == above or value == limit else "**no**"]

    if "step" in figures:
        yield told("training step over the three decoder products, ML-20M shape, ≤ 1.35", figures["step"]["ratio_to_products"], 1.35)
        yield told("training users/s over the dense step, ML-20M shape, ≥ 2.5", 1 / figures["step"]["ratio_to_dense"], 2.5, above=True)
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
                yield told(f"training users/s over the fastest rival ({fastest}), {shape}, ≥ 3", over[fastest], 3, above=True)
    if "scoring-20k" in figures:
        yield told("top-100 over the single product, 20 k items, ≤ 1.3", figures["scoring-20k"]["ratio_to_product"], 1.3)
        yield told("evaluation over scoring, 20 k items, ≤ 1.3", figures["scoring-20k"]["ratio_of_evaluation"], 1.3)
    yield from extra_goals(figures, told)


def extra_goals(figures: Figures, told: Callable[..., list[str]]) -> Iterator[list[str]]:
    """Those of memory."""
    yield from ()


def goal_table(figures: Figures) -> str:
    """All goals of the engine."""
    return markdown(["goal", "measured", "met"], list(goals(figures)))


TABLES: dict[str, tuple[Callable[[Figures], str], tuple[str, ...]]] = {
    "machine": (machine, ()),
    "goals": (goal_table, ("step",)),
    "step": (steps, ("step", "step-pia")),
    "scoring": (scoring, ("scoring-20k",)),
    "rivals": (rivals, ("rivals",)),
}
"""What each table is made by, and the measurements without which it stays as it is."""


def main() -> None:
    """Fills in the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="folder of JSON files")
    parser.add_argument("page", type=Path)
    args = parser.parse_args()
    figures = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(args.figures.glob("*.json"))}
    page = args.page.read_text(encoding="utf-8")
    for name, (table, needed) in TABLES.items():
        if all(one in figures for one in needed):
            text = table(figures)
            print(f"\n{name}\n\n{text}")
            pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
            if not pattern.search(page):
                raise SystemExit(f"{args.page}: must hold <!-- {name} --> and <!-- /{name} -->; add them where the table belongs.")
            page = pattern.sub(lambda found, text=text: found[1] + text + found[2], page)  # type: ignore[misc]
    with publish_file(args.page) as aside:
        aside.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
