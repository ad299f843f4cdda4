"""``coterie analyze SERVICE``: which versions, on which data, what is written, what is refused."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from analysed_service import FEW, TODAY
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError, DataError, NotFoundError
from coterie.files import read_manifest
from coterie.jobs.config import Service
from coterie.jobs.weekly import weekly
from coterie.jobs.window import window_of
from coterie.lab.collaboration.of_service import FACTS, LATENT, analyses, analyze_version, chosen
from coterie.lab.collaboration.people_map import in_common, neighbours_kept, sample_of
from coterie.lab.collaboration.report import SCHEMA
from coterie.map_file import MapFile
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.registry import Registry
from small_service import LIVING, TINY, configure

Run = Callable[..., int]


@pytest.fixture
def service(analysed: Path, tmp_path: Path) -> Service:
    """One of its own, two weeks old and looked into."""
    shutil.copytree(analysed, tmp_path / "own")
    return Service.load(tmp_path / "own")


def test_an_analysis_is_whole_and_of_the_window_of_its_version(analysed: Path) -> None:
    service = Service.load(analysed)
    versions = {one.name: one for one in Registry(service.registry).versions}
    told = analyses(service)
    assert [one["version"] for one in told] == sorted(versions)
    for one in told:
        folder = analysed / "analysis" / one["version"]
        manifest = read_manifest(folder, SCHEMA)
        assert {"report.html", FACTS, "numbers.json", "map.bin", LATENT} <= set(manifest["files"])
        assert manifest["dataset"] == versions[one["version"]].card["data"]
        assert one["same_data"]
        assert one["window"] == versions[one["version"]].card["window"]
        people = MapFile.read(folder)
        assert len(people.user_ids) == one["users"]["shown"] == one["users"]["all"]
        setting = json.loads((folder / "numbers.json").read_text())["settings"][one["version"]]
        assert setting["quality"]["mean"] is None
        assert setting["teaching"] is not None


def test_the_second_week_lies_over_the_first(analysed: Path) -> None:
    first, last = (one["version"] for one in analyses(Service.load(analysed)))
    here, there = (MapFile.read(analysed / "analysis" / one) for one in (last, first))
    told = analyses(Service.load(analysed))[1]["before"]
    assert told["version"] == first
    mine, theirs = in_common(here.user_ids, there.user_ids)
    # Centres agree, as of any Procrustes alignment; before it each map's own mean is nought.
    one, other = here.layouts[0].users[mine], there.layouts[0].users[theirs]
    np.testing.assert_allclose(one.mean(axis=0), other.mean(axis=0), atol=1e-4)
    points = [np.load(analysed / "analysis" / one / LATENT) for one in (last, first)]
    now, then = torch.tensor(points[0][mine]), torch.tensor(points[1][theirs])
    kept = neighbours_kept(now, then, 20)
    assert told["kept"][0] == pytest.approx(kept.mean())
    assert told["chance"] < told["kept"][1] < told["kept"][0] < told["kept"][2]


def test_people_are_in_the_order_of_their_hashes(analysed: Path) -> None:
    people = MapFile.read(analysed / "analysis" / analyses(Service.load(analysed))[0]["version"])
    assert sample_of(people.user_ids, 9999).tolist() == list(range(len(people.user_ids)))


def test_weeks_takes_what_is_not_there_yet(service: Service) -> None:
    live = Registry(service.registry).live
    assert live is not None
    assert [one.name for one in chosen(service)] == [live.name]
    assert chosen(service, weeks=8) == []
    shutil.rmtree(service.folder / "analysis" / live.name)
    assert [one.name for one in chosen(service, weeks=8)] == [live.name]
    first = analyses(service)[0]["version"]
    assert [one.name for one in chosen(service, first)] == [first]
    with pytest.raises(NotFoundError):
        chosen(service, "nobody")


def test_a_week_whose_work_is_gone_is_prepared_anew(service: Service) -> None:
    first = Registry(service.registry).version(analyses(service)[0]["version"])
    assert window_of(service, first).fingerprint == first.card["data"]
    assert not list((service.work / "weekly").glob(f"{first.name[:8]}/everything"))
    live = Registry(service.registry).live
    assert live is not None
    there = service.work / "weekly" / live.name[:8] / "everything"
    before = Dataset.load(there).fingerprint
    shutil.rmtree(there)
    assert window_of(service, live).fingerprint == before == live.card["data"]


def test_what_its_days_no_longer_say_is_refused(service: Service) -> None:
    first = Registry(service.registry).version(analyses(service)[0]["version"])
    shutil.rmtree(service.folder / "analysis")
    day = first.card["window"][1]
    shutil.rmtree(service.folder / "events")
    (service.folder / "events").mkdir()
    with pytest.raises(DataError, match=f"to {day}, must be among the events"):
        analyze_version(service, first, FEW)
    LIVING.write(service.folder, TODAY - timedelta(days=14), TODAY - timedelta(days=8))
    with pytest.raises(DataError, match="the titles of its window must be those"):
        analyze_version(service, first, FEW)
    assert not (service.folder / "analysis").exists()


def test_a_service_without_a_model_is_told_to_train(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run coterie weekly"):
        chosen(configure(tmp_path / "new", TINY))


def test_the_verb_writes_into_the_service(
    service: Service, run_coterie: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = service.folder
    assert run_coterie("analyze", folder, "--weeks", 3, "--json", tmp_path / "told.json") == 0
    assert "has its analysis already" in capsys.readouterr().out
    assert json.loads((tmp_path / "told.json").read_text()) == {"written": []}
    assert run_coterie("analyze", folder, "--out", tmp_path / "elsewhere") == 2
    assert "analysis/VERSION" in capsys.readouterr().err
    assert run_coterie("analyze", folder, "--version", "nobody") == 6
    assert run_coterie("analyze", tmp_path / "run", "--out", tmp_path / "a", "--weeks", 1) == 2


def test_the_default_model_is_looked_into(tmp_path: Path) -> None:
    """A Mult-VAE with a linear path, as `coterie init` writes it: no part of it is refused."""
    service = configure(tmp_path / "own", TINY)
    assert isinstance(service.config.model, LinearPathVAEConfig)
    today = TODAY - timedelta(days=7)
    LIVING.write(service.folder, today - timedelta(days=28), today - timedelta(days=1))
    name = weekly(service, today, device="cpu").version
    version = Registry(service.registry).version(name)
    told = json.loads((analyze_version(service, version, FEW) / "numbers.json").read_text())
    assert told["settings"][name]["bottleneck"]["n_active"] > 0


def test_a_model_without_a_posterior_is_refused(service: Service) -> None:
    untrained = {name: section for name, section in TINY.items() if name != "training"}
    other = configure(service.folder, untrained, model={"name": "ease"})
    LIVING.write(service.folder, TODAY, TODAY + timedelta(days=6))
    name = weekly(other, TODAY + timedelta(days=7), device="cpu").version
    with pytest.raises(ConfigError, match="need a variational autoencoder"):
        analyze_version(other, Registry(other.registry).version(name), FEW)
    assert not (service.folder / "analysis" / name).exists()
