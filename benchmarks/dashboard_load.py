"""How long each page of the dashboard takes: its server, and a browser that draws it.

    python benchmarks/dashboard_load.py SERVICE --date 2026-02-27 --json bench/dashboard.json

The server is a process of its own, as ``coterie dashboard`` starts it, and is warm: what it keeps
was read. Pages are all that there are, with parameters found in the service: its heaviest user and
a light one, its most popular title, its two newest versions, its experiments. A page that is not in
`asked_for` is asked for without any.

Chromium has an empty cache at each visit. Of the map it waits for the mark ``map-drawn``, which the
page sets (`performance.mark`) with the first frame that has all points; then the canvas ``#map`` is
dragged, and the times between its frames are told.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import duckdb
import httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from coterie.dashboard.pages import PAGES
from coterie.files import write_json
from coterie.jobs.config import Service
from coterie.lab.bench.turns import machine
from coterie.plain_table import plain_table
from coterie.registry import Registry

SHOW = """
import json, sys
from datetime import date
from coterie.dashboard import show_dashboard
folder, day = json.loads(sys.argv[1])
show_dashboard(folder, port=0, today=date.fromisoformat(day),
               ready=lambda address: print(address, flush=True))
"""
MAP = "/map"
VISITS = 5
_OPTIONS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]

_WHEN = """(name) => new Promise((done) => {
    const look = () => {
        const [entry] = performance.getEntriesByName(name);
        entry ? done(entry.startTime / 1e3) : setTimeout(look, 10);
    };
    look();
})"""
_NOTE_FRAMES = """() => {
    window.frames_at = [];
    const note = (at) => { window.frames_at.push(at); requestAnimationFrame(note); };
    requestAnimationFrame(note);
}"""
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1e3"


@contextmanager
def dashboard(folder: Path, day: date) -> Iterator[str]:
    """The address of one in a process of its own."""
    told = json.dumps([str(folder), day.isoformat()])
    command = [sys.executable, "-c", SHOW, told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def asked_for(folder: Path) -> Mapping[str, list[dict[str, str]]]:
    """Of pages that take parameters, what to ask for, by their path."""
    service = Service.load(folder)
    heavy, light, popular = _people(service)
    versions = [one.name for one in Registry(service.registry).versions if not one.is_arm][-2:]
    pair = dict(zip("ab", versions, strict=False))
    names = service.experiments.started or service.experiments.defined
    newest = [{"version": versions[-1]}] if versions else []
    return {
        "/users": [{"id": heavy}, {"id": light}],
        "/titles": [{"id": popular}],
        "/try": [{"pick": popular}],
        "/models": [{}, *newest],
        "/models/compare": [pair],
        "/compare": [pair],
        "/experiments": [{}, *({"name": name} for name in names[-1:])],
    }


def _people(service: Service) -> tuple[str, str, str]:
    """The user with most events, one with three, and the title with most users."""
    events = service.config.events
    source = f"read_parquet('{service.folder}/events/**/*.parquet', union_by_name = true)"

    def first(column: str, order: str) -> str:
        found = duckdb.execute(
            f'SELECT "{column}" FROM {source} GROUP BY 1 HAVING count(*) >= 3'
            f" ORDER BY count(*) {order}, 1 LIMIT 1"
        ).fetchone()
        return str(found[0]) if found else ""

    users, items = events.user_column, events.item_column
    return first(users, "DESC"), first(users, "ASC"), first(items, "DESC")


def addresses(folder: Path) -> list[str]:
    """Of all pages, with their parameters."""
    asked = asked_for(folder)
    return [
        path + (f"?{urlencode(query)}" if query else "")
        for path in PAGES
        for query in asked.get(path, [{}])
    ]


def server_times(address: str, paths: list[str], requests: int) -> dict[str, dict[str, Any]]:
    """Of each path, seconds from a request to the whole answer, one after another, in turns."""
    seconds: dict[str, list[float]] = {path: [] for path in paths}
    told = {}
    with httpx.Client(base_url=address, timeout=120) as client:
        for path in paths:
            begun = time.perf_counter()
            client.get(path)
            told[path] = {"first_seconds": time.perf_counter() - begun}
        for _ in range(requests):
            for path in paths:
                begun = time.perf_counter()
                answer = client.get(path)
                seconds[path].append(time.perf_counter() - begun)
                told[path] |= {"status": answer.status_code, "bytes": len(answer.content)}
    for path, times in seconds.items():
        told[path]["median_seconds"] = statistics.median(times)
        told[path]["p95_seconds"] = float(np.quantile(times, 0.95))
    return told


def browser_times(browser: Browser, address: str, path: str) -> dict[str, float]:
    """Medians of some visits: first contentful paint and load, in seconds."""
    visits = [_visit(browser, address + path) for _ in range(VISITS)]
    return {name: statistics.median(one[name] for one in visits) for name in visits[0]}


def _visit(browser: Browser, url: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(url)
    page.wait_for_load_state("load")
    told = {"paint_seconds": _when(page, "first-contentful-paint"), "load_seconds": _loaded(page)}
    if page.locator("canvas#map").count():
        told |= _map(page)
    context.close()
    return told


def _when(page: Page, name: str) -> float:
    """Seconds after the request until the page has an entry of its performance."""
    return float(page.evaluate(_WHEN, name))


def _loaded(page: Page) -> float:
    return float(page.evaluate(_LOADED))


def _map(page: Page) -> dict[str, float]:
    """Seconds until it is drawn, and between frames while it is dragged for two seconds."""
    drawn = _when(page, "map-drawn")
    box = page.locator("canvas#map").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(_NOTE_FRAMES)
    page.mouse.move(x, y)
    page.mouse.down()
    until, n = time.monotonic() + 2, 0
    while time.monotonic() < until:
        n += 1
        page.mouse.move(x + 100 * np.sin(n / 9), y + 60 * np.cos(n / 9))
    page.mouse.up()
    between = np.diff(page.evaluate("window.frames_at")) / 1e3
    frames = {"frame_seconds": np.median(between), "frame_p95_seconds": np.quantile(between, 0.95)}
    return {"drawn_seconds": drawn, **{name: float(one) for name, one in frames.items()}}


def table(pages: Mapping[str, Mapping[str, Any]]) -> str:
    """All of it, in milliseconds, for a terminal."""
    names = ("median", "p95", "first", "paint", "load", "drawn", "frame", "frame_p95")
    rows = [
        [
            path[:60],
            *(_ms(one.get(f"{name}_seconds")) for name in names),
            f"{one['bytes'] / 1000:.0f}",
            str(one["status"]),
        ]
        for path, one in pages.items()
    ]
    header = ["page", *(f"{name.replace('_', ' ')}, ms" for name in names), "kB", "status"]
    return plain_table(header, rows, [False, *[True] * (len(header) - 1)])


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("service", type=Path)
    parser.add_argument("--date", type=date.fromisoformat, required=True)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with dashboard(options.service, options.date) as address:
        pages = server_times(address, addresses(options.service), options.requests)
        if chromium is not None:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=_OPTIONS)
                for path, told in pages.items():
                    told.update(browser_times(browser, address, path))
                browser.close()
    print(table(pages))
    if options.json is not None:
        write_json(options.json, {"machine": machine("cpu"), "pages": pages})


if __name__ == "__main__":
    main()
