"""The search finds leftovers anywhere, and reports their place without their text."""

import base64
import gzip
import json
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.erase import certificate, leftovers
from components.erase.leftovers import Searched
from components.erase.subject import SearchTerms, Subject
from components.store import spool
from flows.erasing import erase
from flows.erasing.erase import ErasureRequest
from tests.components.erase.conftest import Eraser
from tests.support import erased_home, logs, warehouses
from tests.support.erased_home import ANN, BOB, House

SAID = erased_home.question(ANN, 5)
OWNED = json.dumps({"user_id": ANN})


@dataclass(frozen=True)
class Erased:
    """A house after the erasure of one person, the certificate, and the id of an erased row."""

    house: House
    certificate: Path
    row_id: str


@pytest.fixture(scope="module")
def erased(built: House, tmp_path_factory: pytest.TempPathFactory) -> Erased:
    home = erased_home.move(built, tmp_path_factory.mktemp("erased") / "home")
    with warehouses.connect(home.settings.warehouse) as con:
        ((row_id,),) = con.execute(
            "select min(interaction_id) from raw.interactions where payload ->> '$.user_id' = $ann",
            {"ann": ANN},
        ).fetchall()
    asked = ErasureRequest(Subject(ANN), demote=False, workloads={})
    written = erase.erase(home.settings, asked, now=lambda: logs.NOW, report=lambda _: None)
    path = home.settings.certificates / f"{written.certificate_id}.json"
    return Erased(home, path, row_id)


def in_a_new_column(home: Path, row_id: str) -> None:
    with warehouses.connect(home / "warehouse.duckdb") as con:
        con.execute("alter table curated.examples add column noted struct(rows varchar[])")
        con.execute("update curated.examples set noted = {'rows': [$id]}", {"id": row_id})


def in_a_new_table(home: Path, row_id: str) -> None:
    with warehouses.connect(home / "warehouse.duckdb") as con:
        con.execute("create table staging.copies as select $said as message", {"said": SAID})


def in_parquet(home: Path, row_id: str) -> None:
    pq.write_table(pa.table({"rows": [[{"ids": [row_id]}]]}), home / "snapshots/left.parquet")


def in_a_spool(home: Path, row_id: str) -> None:
    writer = spool.Writer(home / "spool")
    writer.commit(
        [spool.line("interactions", "app", json.dumps(erased_home.line(ANN, 70)).encode())]
    )
    writer.seal()


def in_a_log(home: Path, row_id: str) -> None:
    (home / "jobs/evaluate-x").mkdir(parents=True)
    (home / "jobs/evaluate-x/log.txt").write_text(f"row 1\nfailed on\n   {SAID}\n")


def in_a_page(home: Path, row_id: str) -> None:
    (home / "evidence/page.md").write_text(f"asked by {ANN}, of late")


def in_sqlite(home: Path, row_id: str) -> None:
    (home / "mlflow").mkdir()
    with sqlite3.connect(home / "mlflow/mlflow.db") as con:
        con.execute("create table tags (value text)")
        con.execute("insert into tags values (?)", [OWNED])


def in_freed_bytes(home: Path, row_id: str) -> None:
    with warehouses.connect(home / "warehouse.duckdb") as con:
        con.execute("set force_compression = 'uncompressed'")
        select = "select $owned || i as owned from range(5000) as numbers (i)"
        con.execute(f"create table staging.gone as {select}", {"owned": OWNED})
        con.execute("checkpoint")
        con.execute("update staging.gone set owned = 'nobody'")


def in_a_binary_request(home: Path, row_id: str) -> None:
    body = base64.b64encode(f"\x0a\x07user.id\x12\x08{ANN}\x00".encode()).decode()
    writer = spool.Writer(home / "spool")
    writer.commit([spool.line("traces", "app", json.dumps(body).encode())])
    writer.seal()


def on_another_disk(home: Path, row_id: str) -> None:
    disk = home.with_name("disk")
    disk.mkdir()
    (home / "linked").symlink_to(disk)
    (disk / "failed.txt").write_text(f"a request of {ANN} failed")


def in_an_older_warehouse(home: Path, row_id: str) -> None:
    with warehouses.connect(home / "before-upgrade.duckdb") as con:
        con.execute("create table raw.kept as select $owned as payload", {"owned": OWNED})


def in_a_packed_file(home: Path, row_id: str) -> None:
    (home / "turns").mkdir()
    (home / "turns/old.json.gz").write_bytes(gzip.compress(OWNED.encode()))


def in_a_file_of_frames(home: Path, row_id: str) -> None:
    frames = [zstandard.compress(text.encode()) for text in ("not hers\n", OWNED)]
    (home / "turns/old.jsonl.zst").write_bytes(b"".join(frames))


def in_a_long_line(home: Path, row_id: str) -> None:
    text = f"{ANN} {row_id}".encode()
    before = bytes(leftovers.PIECE - len(text) // 2)  # so that no piece that is read has it whole
    (home / "turns/long.gz").write_bytes(gzip.compress(before + text + bytes(2**20), 1))


def in_damaged_files(home: Path, row_id: str) -> None:
    (home / "turns/half.parquet").write_bytes(b"PAR1\n" + OWNED.encode() + b"\n and no more")
    (home / "turns/cut.json.gz").write_bytes(gzip.compress(OWNED.encode())[:-12])


PLANTS = (
    in_a_new_column,
    in_a_new_table,
    in_parquet,
    in_a_spool,
    in_a_binary_request,
    in_a_log,
    in_a_page,
    on_another_disk,
    in_an_older_warehouse,
    in_a_packed_file,
    in_a_file_of_frames,
    in_a_long_line,
    in_damaged_files,
    in_sqlite,
    in_freed_bytes,
)


@pytest.fixture(scope="module")
def found(erased: Erased, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Searched]:
    """What two searches find after everything was planted: with the id, and with a certificate."""
    assert verify(erased.house).left == ()
    home = erased_home.move(erased.house, tmp_path_factory.mktemp("planted") / "home")
    for plant in PLANTS:
        plant(home.settings.home, erased.row_id)
    by_id = verify(home)
    return {"id": by_id, "certificate": verify(home, erased.certificate)}


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        pytest.param("warehouse curated.examples.noted", "erased row", id="column"),
        pytest.param("warehouse staging.copies.message", "erased text", id="table"),
        pytest.param("snapshots/left.parquet.rows", "erased row", id="parquet"),
        pytest.param("spool/", "id", id="spool"),
        pytest.param("spool/", "mention", id="binary-request"),
        pytest.param("jobs/evaluate-x/log.txt", "erased text", id="log"),
        pytest.param("evidence/page.md", "mention", id="page"),
        pytest.param("linked/failed.txt", "mention", id="disk"),
        pytest.param("before-upgrade.duckdb raw.kept.payload", "id", id="older-warehouse"),
        pytest.param("turns/old.json.gz", "id", id="packed"),
        pytest.param("turns/old.jsonl.zst", "id", id="frames"),
        pytest.param("turns/long.gz", "erased row", id="long-line"),
        pytest.param("turns/half.parquet", "id", id="half-written"),
        pytest.param("mlflow/mlflow.db.tags.value", "id", id="sqlite"),
        pytest.param("warehouse.duckdb", "freed bytes", id="freed-bytes"),
    ],
)
def test_a_leftover_is_found_where_it_was_planted(
    where: str, kind: str, found: dict[str, Searched]
) -> None:
    left = [(leftover.where, leftover.kind) for leftover in found["id"].left]
    assert any(place.startswith(where) and what == kind for place, what in left), left
    assert not found["id"].is_clean(allow_mentions=False)
    if kind not in ("mention", "freed bytes"):  # a certificate does not say who it is about
        left = [(leftover.where, leftover.kind) for leftover in found["certificate"].left]
        assert any(place.startswith(where) and what == kind for place, what in left), left


def test_a_file_that_cant_be_read_is_named(found: dict[str, Searched]) -> None:
    noted = [place for place in found["id"].passed_over if "can't be read" in place]
    assert [place.partition(",")[0] for place in noted] == [
        "turns/cut.json.gz",
        "turns/half.parquet",
    ]


def invalid_text(file: Path) -> None:
    bytes_ = pa.array([f"\xff{ANN}".encode("latin-1")], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, bytes_.buffers())
    pq.write_table(pa.table({"text": text}), file, compression="none")


def far_day(file: Path) -> None:
    days = pa.array([2**30], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"day": days, "text": [ANN]}), file, compression="none")


def unknown_zone(file: Path) -> None:
    times = pa.array([1], pa.int64()).cast(pa.timestamp("us", "Mars/Olympus"))
    pq.write_table(pa.table({"time": times, "text": [ANN]}), file, compression="none")


def table_without_name(file: Path) -> None:
    with sqlite3.connect(file) as con:
        con.execute("create table texts (text)")
        con.execute("insert into texts values (?)", [ANN])
        con.execute("pragma writable_schema = 1")
        con.execute("update sqlite_master set name = cast(x'ff' as text)")


@pytest.mark.parametrize("write", [invalid_text, far_day, unknown_zone, table_without_name])
def test_a_file_with_values_that_python_has_not_ends_no_search(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    """Somebody with an account in MLflow can send one; so nobody could have been erased."""
    home = tmp_path / "home"
    home.mkdir()
    name = "strange.db" if write is table_without_name else "strange.parquet"
    write(home / name)
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        searched = leftovers.search(con, home, SearchTerms("key", "digest", Subject(ANN)))
    assert searched.passed_over == (f"{name}, which can't be read, but for its bytes",)
    assert [(left.where, left.kind) for left in searched.left] == [(name, "mention")]


def one_text_again_and_again(file: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 2**15), ["x" * 2**22])
    pq.write_table(pa.table({"text": text, "user_id": pa.repeat(ANN, 2**15)}), file)


def many_empty_texts_in_a_row(file: Path) -> None:
    count = 2**28
    texts = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.string()))
    pq.write_table(pa.table({"texts": texts, "user_id": [ANN]}), file)


def a_row_of_very_much_text(file: Path) -> None:
    with closing(sqlite3.connect(file)) as con:
        con.execute("create table rows (length, text as (hex(zeroblob(length))))")
        con.executemany("insert into rows values (?)", [(4,), (450_000_000,)])
        con.execute("insert into rows (length) values (?)", [ANN])
        con.commit()


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [one_text_again_and_again, many_empty_texts_in_a_row, a_row_of_very_much_text]
)
def test_a_file_that_unpacks_into_very_much_is_named(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    """Somebody with an account in MLflow can send one of a few kilobytes."""
    home = tmp_path / "home"
    home.mkdir()
    name = "bomb.db" if write is a_row_of_very_much_text else "bomb.parquet"
    write(home / name)
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        searched = leftovers.search(con, home, SearchTerms("key", "digest", Subject(ANN)))
        assert con.execute("select 1").fetchall() == [(1,)]
    assert searched.passed_over == (f"{name}, which can't be read, but for its bytes",)


@pytest.mark.slow
def test_a_line_is_not_held_in_memory_however_long_it_is(tmp_path: Path) -> None:
    """Somebody with an account in MLflow can send one, which takes a few bytes packed."""
    zeros, home = bytes(2**20), tmp_path / "home"
    home.mkdir()
    with zstandard.open(home / "endless.zst", "wb") as file:
        for _ in range(1024):
            file.write(zeros)
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        tracemalloc.start()
        searched = leftovers.search(con, home, SearchTerms("key", "digest", Subject(ANN)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert searched.places["endless.zst"] == 1
    assert not searched.passed_over
    assert peak < 2**30


def test_equal_texts_of_other_people_are_not_leftovers(home: House, eraser: Eraser) -> None:
    thanks = "Thank you, that is all I wanted to know about the weather."
    both = [
        logs.interaction(thanks, response_id=f"t-{person}", user_id=person) for person in (ANN, BOB)
    ]
    with warehouses.connect(home.settings.warehouse) as con:
        path = logs.write(home.log.with_name("thanks.jsonl"), both)
        logs.load(con, path, now=logs.NOW)
    assert eraser(home.settings, Subject(ANN)).searched.left == ()
    assert any(thanks in str(row["payload"]) for row in home.raw())


def test_a_certificate_names_nobody_and_notices_a_change(erased: Erased, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(erased.certificate.parent, tmp_path / "certificates"))
    written = folder / erased.certificate.name
    assert erased_home.holds(folder, "ann") == []
    body = json.loads(written.read_text())
    assert body["erased"]["raw.interactions"] == erased_home.EACH
    assert body["searched"]["left"] == []
    page = written.with_suffix(".md").read_text()
    assert "Nothing is left." in page
    assert f"| raw.interactions | {erased_home.EACH} |" in page
    written.write_text(written.read_text().replace('"raw.feedback": 2', '"raw.feedback": 1'))
    with pytest.raises(ValueError, match="was changed, or is no certificate"):
        certificate.read_id(written)


def verify(home: House, certificate_path: Path | None = None) -> Searched:
    subject = None if certificate_path else Subject(ANN)
    return erase.verify_erasure(home.settings, subject=subject, certificate_path=certificate_path)
