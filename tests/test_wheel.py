"""The wheel as somebody gets it: what is in it, and that it runs where only it is installed."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

import coterie

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = ["hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run([sys.executable, "-m", *build], check=True, cwd=ROOT, capture_output=True)
    (made,) = out.iterdir()
    return made


Run = Callable[..., str]


def path_of(run: Run, expression: str) -> Path:
    return Path(run("python", "-c", f"import coterie, sys, sysconfig; print({expression})").strip())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of a new environment, in a folder that has nothing to do with this one.

    The wheel is installed in it, and what Coterie needs is lent by the environment of the tests: a
    path in a .pth file is searched last, and the .pth files that lie there are not followed, such
    as that of an editable Coterie.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    scripts = home / Path(sysconfig.get_path("scripts")).name
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(command: str, *arguments: object) -> str:
        where = tmp_path_factory.mktemp("elsewhere")
        done = subprocess.run(
            [scripts / command, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=where,
            env=variables | {"PYTHONIOENCODING": "utf-8"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "--no-deps", "--no-index", wheel)
    own = path_of(run, "sysconfig.get_path('purelib')")
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return run


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix(): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {Path(name).suffix for name in expected} >= {".py", ".toml", ".j2", ".typed"}
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert {name: archive.read(name) for name in names} == expected


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    folder = f"coterie-{coterie.__version__}.dist-info"
    with ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"]) == ("coterie", coterie.__version__)
    assert metadata["Requires-Python"] == ">=3.11"
    minors = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert minors <= set(metadata.get_all("Classifier", []))


def test_the_wheel_runs_where_it_is_installed(installed: Run) -> None:
    assert path_of(installed, "coterie.__file__").is_relative_to(path_of(installed, "sys.prefix"))
    assert installed("coterie", "--version").strip() == coterie.__version__


def test_an_installed_coterie_gives_the_demo(installed: Run) -> None:
    told = installed("coterie", "demo", "--users", 1000, "--items", 200)
    assert "best possible" in told
    assert "would be shown" in told


def test_an_installed_coterie_finds_its_data_files(installed: Run, tmp_path: Path) -> None:
    installed("coterie", "init", tmp_path / "service")
    assert (tmp_path / "service" / "coterie.toml").exists()
