"""A dashboard in a thread, and a real browser that looks at it."""

import shutil
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: apt-get install chromium"
)
DESKTOP, PHONE = (1280, 900), (390, 800)
# WebGL in software, as there may be no graphics card; as root Chromium has no sandbox.
_OPTIONS = ["--no-sandbox", "--use-gl=swiftshader", "--enable-webgl", "--ignore-gpu-blocklist"]


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS)
        yield browser
        browser.close()


@contextmanager
def shown(folder: Path, today: date) -> Iterator[str]:
    """The address of a dashboard, as its server gives it to a real browser."""
    import uvicorn  # noqa: PLC0415

    from coterie.dashboard import create_dashboard  # noqa: PLC0415
    from coterie.serving.access import listening  # noqa: PLC0415

    app = create_dashboard(folder, today=today)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


class Visit:
    """A tab, and what went wrong in it.

    Args:
        browser: That has it.
        address: Of the dashboard.
        size: Of the window.
        theme: ``light`` or ``dark``.
    """

    def __init__(
        self, browser: Browser, address: str, size: tuple[int, int] = DESKTOP, theme: str = "light"
    ) -> None:
        self.address, self.faults = address, list[str]()
        self._context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if theme == "dark" else "light",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.page: Page = self._context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._dialog)

    def open(self, path: str) -> Page:
        """Goes to a page."""
        self.page.goto(self.address + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def close(self) -> None:
        """Closes the tab."""
        self._context.close()

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(width))

    def _heard(self, message: ConsoleMessage) -> None:
        # That reading pixels takes its time is the software driver's word, not the page's.
        if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"outside: {request.url}")

    def _dialog(self, dialog: object) -> None:
        self.faults.append("a dialog")
        dialog.dismiss()  # type: ignore[attr-defined]


def look(browser: Browser, address: str, path: str) -> None:
    """What holds of every page, on a desk and on a telephone, light and dark: it loads whole,
    without a fault or a request to elsewhere, is no wider than the window, has nothing that axe
    calls serious, and has its JSON.
    """
    for size in (DESKTOP, PHONE):
        for theme in ("light", "dark"):
            visit = Visit(browser, address, size, theme)
            page = visit.open(path)
            # A sandboxed page inside takes no message from axe, which is an error of the console.
            found = Axe().run(page, options={"iframes": False}).response["violations"]
            wrong = [
                (one["id"], [node["target"] for node in one["nodes"]])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert not wrong, (path, size, theme)
            assert visit.overflow() <= 0, (path, size)
            assert not visit.faults, (path, size, theme)
            assert page.locator("h1").count() == 1
            visit.close()
    before, mark, query = path.partition("?")
    told = f"{'/today' if before == '/' else before}.json{mark}{query}"
    with urllib.request.urlopen(address + told) as answer:
        assert answer.headers["content-type"] == "application/json"
