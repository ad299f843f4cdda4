"""The demo: columns of published logs guessed as their publishers mean them, and all of it on small
logs.
"""

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import coterie
from coterie.cli.console import command
from coterie.data.dataset import Dataset
from coterie.data.log import InteractionLog
from coterie.data.titles import read_titles
from coterie.errors import ConfigError, DataError, SourceError
from coterie.files import check_replaceable
from coterie.lab.demo.contest import METRIC
from coterie.lab.demo.guess import ROLES, Guess, guess
from coterie.lab.demo.models import EASE, MODELS, PATH, POPULARITY, WHAT_FOR
from coterie.lab.demo.own_log import OwnLog, likes, prepare_own
from coterie.lab.demo.preview import Preview, preview
from coterie.lab.demo.run import BEST, KIND, run_demo, run_on_log
from coterie.simulation.service import SimulatedService
from dashboard_parts import visitor

# The first lines as published; what follows is user, item, rating and time.
REAL = {
    "MovieLens latest, 20M": (
        "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n1,306,3.5,1147868817\n",
        ("userId", "movieId", "rating", "timestamp"),
    ),
    "MovieLens 1M, MovieTweetings": (
        "1::1193::5::978300760\n1::661::3::978302109\n",
        ("user", "item", "rating", "time"),
    ),
    "MovieLens 100K": (
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        ("user", "item", "rating", "time"),
    ),
    "Amazon 2014, with a header": (
        "reviewerID,asin,overall,unixReviewTime\nA2SUAM1J3GNN3B,0000013714,5.0,1382659200\n",
        ("reviewerID", "asin", "overall", "unixReviewTime"),
    ),
    "Amazon 2014, ratings only": (
        "AKM1MP6P0OYPR,0132793040,5.0,1365811200\nA2CX7LUOHB2NDG,0321732944,5.0,1341100800\n",
        ("user", "item", "rating", "time"),
    ),
    "Amazon 2018, ratings only": (
        "0001713353,A1C6M8LCIX4M6M,5.0,1123804800\nB000F83SZQ,A1REUF3A1YCPHM,5.0,1112140800\n",
        ("user", "item", "rating", "time"),
    ),
    "Amazon 2014, JSON": (
        '{"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald",'
        ' "helpful": [2, 3], "reviewText": "Good.", "overall": 5.0, "summary": "Heavenly",'
        ' "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n',
        ("reviewerID", "asin", "overall", "unixReviewTime"),
    ),
    "Amazon 2023, JSON": (
        '{"rating": 5.0, "title": "Such a lovely scent", "text": "Good.", "images": [], "asin":'
        ' "B00YQ6X8EO", "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",'
        ' "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n',
        ("user_id", "asin", "rating", "timestamp"),
    ),
    "Amazon customer reviews": (
        "marketplace\tcustomer_id\treview_id\tproduct_id\tproduct_parent\tproduct_title\t"
        "product_category\tstar_rating\thelpful_votes\ttotal_votes\tvine\treview_date\n"
        "US\t24371595\tR27ZP1F1CD0C3Y\tB004LLIL5A\t346014806\tCelebration\tToys\t5\t0\t0\tN\t"
        "2015-08-31\n",
        ("customer_id", "product_id", "star_rating", "review_date"),
    ),
    "Last.fm, HetRec": (
        "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n",
        ("userID", "artistID", "weight", None),
    ),
    "Last.fm 360K": (
        "00000c289a1829a808ac09c00daf10bc3c4e223b\t3bd73256-3905-4f3a-97e2-8b341527f805\t"
        "betty blowtorch\t2137\n",
        ("user", "item", "rating", None),
    ),
    "Taste Profile": (
        "b80344d063b5ccb3212f76538f3d9e43d87dca9e\tSOAKIMP12A8C130995\t1\n"
        "b80344d063b5ccb3212f76538f3d9e43d87dca9e\tSOBBMDR12A8C13253B\t2\n",
        ("user", "item", "rating", None),
    ),
    "Book-Crossing": (
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n',
        ("User-ID", "ISBN", "Book-Rating", None),
    ),
    "Book-Crossing, joined": (
        "user_id,location,age,isbn,rating,book_title,book_author\n"
        "2,stockton,18.0,0195153448,0,Classical Mythology,Morford\n",
        ("user_id", "isbn", "rating", None),
    ),
    "RetailRocket": (
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n",
        ("visitorid", "itemid", None, "timestamp"),
    ),
    "Steam reviews": (
        "app_id,helpful,funny,date,is_recommended,hours,user_id,review_id\n"
        "975370,0,0,2022-12-12,true,36.3,51580,0\n304390,4,0,2017-02-17,false,11.5,2586,1\n",
        ("user_id", "app_id", "is_recommended", "date"),
    ),
    "Yelp": (
        '{"review_id": "KU_O5udG6zpxOg", "user_id": "mh_-eMZ6K5RLWhZyISBhwA", "business_id":'
        ' "XQfwVwDr-v0ZS3_CbbE5Xw", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0, "text": "Ok",'
        ' "date": "2018-07-07 22:09:11"}\n',
        ("user_id", "business_id", "stars", "date"),
    ),
    "goodbooks": (
        "user_id,book_id,rating\n1,258,5\n2,4081,4\n",
        ("user_id", "book_id", "rating", None),
    ),
    "Jester": ("1\t\t5\t\t0.219\n1\t\t7\t\t-9.281\n", ("user", "item", "rating", None)),
    "BeerAdvocate": (
        "brewery_id,brewery_name,review_time,review_overall,review_aroma,review_appearance,"
        "review_profilename,beer_style,review_palate,review_taste,beer_name,beer_abv,beer_beerid\n"
        "10325,Vecchio Birraio,1234817823,1.5,2,2.5,stcules,Hefeweizen,1.5,1.5,Sausa Weizen,5,"
        "47986\n",
        ("review_profilename", "beer_beerid", "review_overall", "review_time"),
    ),
    "Anime": (
        "user_id,anime_id,rating\n1,20,-1\n1,24,10\n",
        ("user_id", "anime_id", "rating", None),
    ),
    "FilmTrust": ("1 1 2\n1 2 4\n", ("user", "item", "rating", None)),
    "Online Retail": (
        "InvoiceNo;StockCode;Description;Quantity;InvoiceDate;UnitPrice;CustomerID;Country\n"
        "536365;85123A;HOLDER;6;01/12/2010 08:26;2,55;17850;United Kingdom\n",
        ("CustomerID", "StockCode", "Quantity", None),
    ),
    "what pandas writes": (
        ",user,product,quantity,order_date\n0,7,hat,2,2024-05-01\n1,8,scarf,1,2024-05-02\n",
        ("user", "product", "quantity", "order_date"),
    ),
}


def guessed(folder: Path, text: str, **stated: str | Sequence[str]) -> Guess:
    file = folder / ("log.jsonl" if text.startswith("{") else "log.csv")
    file.write_text(text)
    return guess(preview(str(file)), stated)  # type: ignore[arg-type]


def columns(one: Guess) -> tuple[str | None, ...]:
    return tuple(map(one.column, ROLES))


@pytest.mark.parametrize("name", REAL)
def test_columns_of_published_logs_are_found(name: str, tmp_path: Path) -> None:
    text, expected = REAL[name]
    assert columns(guessed(tmp_path, text)) == expected


@pytest.mark.parametrize("name", REAL)
def test_what_was_guessed_reads_the_log(name: str, tmp_path: Path) -> None:
    text, expected = REAL[name]
    one = guessed(tmp_path, text)
    file = next(tmp_path.iterdir())
    with coterie.read_log(file, **(one.table | {"negative_ratings": True})) as log:
        has_header = not text.startswith("{") and "columns" not in one.table
        assert log.n_rows == text.count("\n") - has_header
        assert log.has("rating") == (expected[2] is not None)
        assert log.has("timestamp") == (expected[3] is not None)


def test_amazons_turned_columns_are_turned(tmp_path: Path) -> None:
    one = guessed(tmp_path, REAL["Amazon 2018, ratings only"][0])
    assert one.table["columns"] == ["item", "user", "rating", "time"]


NOUNS = {"user": ["user", "customer", "visitor"], "item": ["item", "movie", "product"]}
STYLES: list[Callable[[str, str], str]] = [
    lambda noun, ending: f"{noun}_{ending}",
    lambda noun, ending: f"{noun}{ending.title()}",
    lambda noun, ending: f"{noun.title()}-{ending.upper()}",
    lambda noun, ending: f"{noun}{ending}",
    lambda noun, ending: f"{noun.upper()}_{ending.upper()}",
    lambda noun, _: noun.title(),
]


@given(
    nouns=st.sampled_from(list(product(NOUNS["user"], NOUNS["item"]))),
    style=st.sampled_from(STYLES),
    order=st.permutations(range(4)),
)
def test_case_signs_and_order_of_a_header_do_not_matter(
    nouns: tuple[str, str], style: Callable[[str, str], str], order: list[int]
) -> None:
    names = [*(style(noun, "id") for noun in nouns), "rating", "colour"]
    rows = [[names[i] for i in order], [["7", "8", "4.5", "red"][i] for i in order]]
    assert columns(guess(Preview(None, rows, ","), {})) == (*names[:3], None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "user_id,track_id,artist_id\n1,2,3\n",
            "one column must be the item's, found track_id and artist_id; say which"
            " (--item-column track_id)",
        ),
        (
            "customer_id,account_id,sku\n1,2,3\n",
            "found customer_id and account_id; say which (--user-column customer_id)",
        ),
        ("user,item,stars,score\n1,2,3,4\n", "found stars and score; say which (--rating-column"),
        (
            "alpha,beta,gamma\n1,2,3\n",
            "must be the user's, found none among alpha, beta, gamma whose name says so; say which"
            " (--user-column NAME)",
        ),
        (
            '151603712,"The Elder Scrolls V Skyrim",purchase,1.0,0\n',
            "must be two to four to be guessed, found 5",
        ),
    ],
)
def test_what_could_be_either_is_refused_by_its_names(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        guessed(tmp_path, text)
    assert words in str(refused.value)


def test_what_is_stated_is_not_guessed(tmp_path: Path) -> None:
    text = "user_id,track_id,artist_id\n1,2,3\n"
    assert columns(guessed(tmp_path, text, item_column="artist_id"))[:2] == ("user_id", "artist_id")
    names = ["who", "game", "kind", "hours", "nothing"]
    one = guessed(tmp_path, "15,Skyrim,play,273.0,0\n", columns=names)
    assert columns(one) == ("who", "game", "hours", None)
    assert one.is_count
    assert one.unused == ["kind", "nothing"]


@pytest.mark.parametrize("names", [["user", "item"], ["user", "item", "a", "b"]])
def test_names_must_be_those_of_all_columns(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"found {len(names)} names for '1, 2, 3'"):
        guessed(tmp_path, "1,2,3\n", columns=names)


def test_a_preview_is_of_any_delimiter_encoding_and_compression(tmp_path: Path) -> None:
    for number, (delimiter, encoding) in enumerate(
        product([",", "\t", ";", "|"], ["utf-8", "latin-1"])
    ):
        text = delimiter.join(["user", "livre", "note"]) + "\n" + delimiter.join(["Zoé", "7", "5"])
        file = tmp_path / f"{number}.csv.gz"
        file.write_bytes(gzip.compress(text.encode(encoding)))
        seen = preview(str(file))
        assert (seen.delimiter, seen.encoding) == (delimiter, encoding)
        assert seen.rows == [["user", "livre", "note"], ["Zoé", "7", "5"]]


def test_an_encoding_is_judged_by_the_whole_file(tmp_path: Path) -> None:
    rows = b"user,item\n" + b"ann,hat\n" * 60_000
    (tmp_path / "log.csv").write_bytes(rows + "ann,b\xe9ret\n".encode("latin-1"))
    assert preview(str(tmp_path / "log.csv")).encoding == "latin-1"
    (tmp_path / "log.csv").write_bytes(rows + "ann,b\xe9ret\n".encode())
    assert preview(str(tmp_path / "log.csv")).encoding == "utf-8"


def test_a_preview_of_parquet_has_its_names(tmp_path: Path) -> None:
    table = pa.table({"who": ["ann", None], "what": [7, 8]})
    pq.write_table(table, tmp_path / "log.parquet")
    seen = preview(str(tmp_path / "log.parquet"))
    assert (seen.names, seen.rows) == (["who", "what"], [["ann", "7"], ["", "8"]])


@pytest.mark.parametrize(
    "text", ["", "\n\n", "one column\nand no other\n", "{oops\n", '{"a": 1}\n']
)
def test_what_is_no_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(SourceError):
        preview(str(tmp_path / "log.csv"))


@pytest.mark.parametrize(
    ("ratings", "is_count", "like", "words"),
    [
        (np.arange(1, 11) / 2, False, 4.0, "≥ 4 (of 0.5–5)"),
        (np.arange(1, 9) / 2, False, 3.0, "≥ 3 (of 0.5–4)"),
        (np.arange(1, 6), False, 4.0, "≥ 4 (of 1–5)"),
        (np.arange(0, 11), False, 7.0, "≥ 7 (of 0–10)"),
        (np.arange(-1, 11), False, 7.0, "≥ 7 (of -1–10)"),
        (np.linspace(-10, 10, 99), False, 0.0, "≥ 0 (of -10–10)"),
        (np.array([0, 1]), False, None, "> 0 (of 0–1)"),
        (np.arange(1, 6), True, None, "all (of 1–5)"),
        (np.arange(1, 400), False, None, "all (of 1–399)"),
        (np.linspace(0.1, 10, 50), False, None, "all (of 0.1–10)"),
    ],
)
def test_likes_are_told_from_the_values(
    ratings: np.ndarray, is_count: bool, like: float | None, words: str
) -> None:
    with InteractionLog("hand-made", "table") as log:
        rows = [(1, item, float(rating)) for item, rating in enumerate(ratings)]
        log.connection.executemany("INSERT INTO log VALUES (?, ?, ?, NULL, NULL)", rows)
        found = likes(log, is_count=is_count)
        assert found[0] == like
        assert found[1].endswith(words)
        assert likes(log, is_count=is_count, stated=3.0)[0] == 3.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    SimulatedService(n_users=600, n_items=120, seed=5).write_ratings_csv(folder)
    return folder


def n_likes(data: Dataset) -> int:
    return len(data.interactions.indices)


def test_an_own_log_is_what_stated_columns_and_rules_give(service: Path) -> None:
    data, told = prepare_own(OwnLog(service / "ratings.csv"), seed=3)
    with coterie.read_log(service) as log:
        like, _ = likes(log, is_count=False)
        split = coterie.StrongGeneralisation(len(data.users) // 5, seed=3)
        rules = coterie.PrepareRules(min_rating=like, min_user_items=5, split=split)
        expected = coterie.prepare(log, rules)
    assert data.users.values.equals(expected.users.values)
    assert (data.train != expected.train).nnz == 0
    assert data.titles == expected.titles
    assert "user = userId, item = movieId, rating = rating" in told
    assert f"{n_likes(data):,} likes, {len(data.users)} users and {len(data.items)} items" in told
    assert "takes more" not in told


def test_folder_archive_and_file_are_the_same_log(service: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.write(service / "ratings.csv", "ratings.csv")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "log.csv").write_bytes((service / "ratings.csv").read_bytes())
    sizes = {
        n_likes(prepare_own(OwnLog(path), seed=3)[0])
        for path in (service, service / "ratings.csv", tmp_path / "log.zip", tmp_path / "alone")
    }
    assert len(sizes) == 1


def test_no_more_users_and_items_take_part_than_said(service: Path) -> None:
    own = OwnLog(service / "ratings.csv", most_users=200, most_items=50)
    data, told = prepare_own(own, seed=3)
    whole, _ = prepare_own(OwnLog(service / "ratings.csv"), seed=3)
    assert 100 < len(data.users) <= 200
    assert 10 < len(data.items) <= 50
    assert "users like or more; --items takes more" in told
    assert "users who like 5 of them or more; --users takes more" in told
    assert set(data.users.values.to_pylist()) < set(whole.users.values.to_pylist())
    other, _ = prepare_own(own, seed=4)
    assert not data.users.values.equals(other.users.values)


def test_too_small_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n" + "".join(f"1,{i}\n" for i in range(9)))
    with pytest.raises(DataError, match=r"100 users must like at least 5 items each, .* found 1;"):
        prepare_own(OwnLog(tmp_path / "log.csv"), seed=1)


def long_tail(path: Path, n_core: int) -> Path:
    """So many users with 10 of 40 items, and 1,000 with 5 items that nobody else has."""
    random = np.random.default_rng(1)
    rows = [(user, item) for user in range(n_core) for item in random.choice(40, 10, False)]
    rows += [(n_core + user, 100 + 5 * user + item) for user in range(1000) for item in range(5)]
    path.write_text("user,item,rating\n" + "".join(f"{user},{item},5\n" for user, item in rows))
    return path


@pytest.mark.parametrize("n_core", [100, 250, 690])
def test_users_count_once_rare_items_are_gone(n_core: int, tmp_path: Path) -> None:
    """Users whose items all went were held out, and left next to nobody to learn from."""
    data, told = prepare_own(OwnLog(long_tail(tmp_path / "log.csv", n_core)), seed=1)
    assert data.provenance["counts"]["train_users"] == n_core - 2 * (n_core // 5)
    assert f"{n_core} users and 40 items take part" in told
    assert "items that 2 users like or more; --items takes more" in told


def test_too_few_users_of_common_items_are_refused_in_the_demos_words(tmp_path: Path) -> None:
    log = long_tail(tmp_path / "log.csv", 99)
    with pytest.raises(DataError, match="of the 5,000 that most users like, found 99; raise --it"):
        prepare_own(OwnLog(log), seed=1)


def test_every_model_is_said_to_be_for_something() -> None:
    assert list(WHAT_FOR) == list(MODELS)


def test_demo_of_the_service_ranks_as_planted(tmp_path: Path) -> None:
    found = run_demo(tmp_path / "demo", n_users=1000, n_items=200, seed=1, device="cpu")
    means = {name: report.mean(METRIC) for name, report in found.reports.items()}
    assert list(means) == [*MODELS, BEST]
    assert means[POPULARITY] < means[EASE] < means[BEST]
    assert means[POPULARITY] < means[PATH] < means[BEST]
    assert max(means, key=means.__getitem__) == BEST
    assert found.contest.chosen in found.text
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000
    assert found.to_json()["models"][BEST]


def test_demo_of_an_own_log_through_the_command_line(
    service: Path,
    tmp_path: Path,
    run_coterie: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, where = service / "ratings.csv", tmp_path / "demo"
    told = tmp_path / "demo.json"
    assert run_coterie("demo", "--data", log, "--out", where, "--json", told) == 0
    shown = capsys.readouterr().out
    assert "ratings.csv: user = userId, item = movieId, rating = rating" in shown
    assert "--user-column" in shown
    assert all(f"{name} " in shown for name in MODELS)
    assert BEST not in shown
    assert shown.splitlines()[-1] == f"see it: coterie dashboard {where}"
    with visitor(where) as client:
        assert client.get("/").status_code == 200
    assert set(json.loads(told.read_text())["models"]) == set(MODELS)
    assert run_coterie("show", where / "runs" / PATH) == 0
    check_replaceable(where, KIND)  # by the next demo


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (".venv/bin/coterie", ".venv/bin/coterie show 'a b'"),
        ("/usr/lib/coterie/cli/__main__.py", "coterie show 'a b'"),
    ],
)
def test_a_command_is_said_as_it_can_be_typed(
    called: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [called, "demo"])
    assert command("show", "a b") == said


def test_columns_without_a_log_are_a_wrong_option(run_coterie: Callable[..., int]) -> None:
    assert run_coterie("demo", "--user-column", "who") == 2
    assert run_coterie("demo", "--min-rating", "3") == 2
    assert run_coterie("demo", "--quote", "none") == 2
    assert run_coterie("demo", "--titles-columns", "id,name") == 2


def test_titles_columns_and_quotes_are_stated(service: Path, tmp_path: Path) -> None:
    """As `prepare` takes them; and titles that were named were not found beside the log."""
    log, names = tmp_path / "log.tsv", tmp_path / "artists.dat"
    with coterie.read_log(service) as read:
        rows = read.connection.execute("SELECT user_id, item_id FROM log").fetchall()
    log.write_text("".join(f'{user}\t"{item}\n' for user, item in rows))
    ids = sorted({item for _, item in rows})
    names.write_text("id\tname\n" + "".join(f'"{item}\t"Weird {item}" Al\n' for item in ids))
    titles = read_titles(names, "id", "name", quote="")
    data, told = prepare_own(OwnLog(log, {"quote": ""}, titles), seed=3)
    assert data.titles is not None
    assert data.titles[0].startswith('"Weird ')  # type: ignore[union-attr]
    assert "beside" not in told
    beside, told = prepare_own(OwnLog(service / "ratings.csv"), seed=3)
    assert beside.titles is not None
    assert "titles were found beside it" in told


def test_wrong_titles_are_told_before_the_work(
    service: Path, tmp_path: Path, run_coterie: Callable[..., int]
) -> None:
    names = tmp_path / "names.csv"
    names.write_text("id,name\n1,a\n")
    log = ("demo", "--data", service / "ratings.csv", "--out", tmp_path / "demo")
    assert run_coterie(*log, "--titles", names, "--titles-columns", "id,title") == 3
    assert not (tmp_path / "demo").exists()


def test_a_folder_with_other_things_is_not_replaced(service: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(ConfigError):
        run_on_log(tmp_path / "mine", OwnLog(service / "ratings.csv"), seed=1, device="cpu")
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["letter.txt"]
