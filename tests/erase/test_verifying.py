"""The search finds what is left, wherever it is, and says where without saying what."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import spool, warehouse
from components.erase import certificate
from components.erase.search import Searched
from components.erase.subject import Subject
from flows import erase
from tests import logs
from tests.erase import house
from tests.erase.conftest import Eraser
from tests.erase.house import ANN, BOB, House

SAID = "ann asks about the weather of place number 5"
OWNED = json.dumps({"user_id": ANN})


def in_a_new_column(home: Path, row_id: str) -> None:
    with warehouse.connect(home / "warehouse.duckdb") as con:
        con.execute("alter table curated.examples add column noted struct(rows varchar[])")
        con.execute("update curated.examples set noted = {'rows': [$id]}", {"id": row_id})


def in_a_new_table(home: Path, row_id: str) -> None:
    with warehouse.connect(home / "warehouse.duckdb") as con:
        con.execute("create table staging.copies as select $said as message", {"said": SAID})


def in_parquet(home: Path, row_id: str) -> None:
    pq.write_table(pa.table({"rows": [[{"ids": [row_id]}]]}), home / "snapshots/left.parquet")


def in_a_spool(home: Path, row_id: str) -> None:
    writer = spool.Writer(home / "spool")
    writer.commit([spool.line("interactions", "app", json.dumps(house.line(ANN, 70)).encode())])
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
    with warehouse.connect(home / "warehouse.duckdb") as con:
        con.execute("set force_compression = 'uncompressed'")
        select = "select $owned || i as owned from range(5000) as numbers (i)"
        con.execute(f"create table staging.gone as {select}", {"owned": OWNED})
        con.execute("checkpoint")
        con.execute("update staging.gone set owned = 'nobody'")


@pytest.mark.parametrize(
    ("plant", "where", "kind"),
    [
        pytest.param(in_a_new_column, "curated.examples.noted", "erased row", id="column"),
        pytest.param(in_a_new_table, "staging.copies.message", "erased text", id="table"),
        pytest.param(in_parquet, "snapshots/left.parquet.rows", "erased row", id="parquet"),
        pytest.param(in_a_spool, "spool/", "id", id="spool"),
        pytest.param(in_a_log, "jobs/evaluate-x/log.txt", "erased text", id="log"),
        pytest.param(in_a_page, "evidence/page.md", "mention", id="page"),
        pytest.param(in_sqlite, "mlflow/mlflow.db.tags.value", "id", id="sqlite"),
        pytest.param(in_freed_bytes, "warehouse.duckdb", "freed bytes", id="freed-bytes"),
    ],
)
def test_a_leftover_is_found_where_it_was_planted(
    plant: Callable[[Path, str], None], where: str, kind: str, erased: tuple[House, Path, str]
) -> None:
    home, written, row_id = erased
    assert verify(home).left == ()
    plant(home.settings.home, row_id)
    found = {(one.where.removeprefix("warehouse "), one.kind) for one in verify(home).left}
    assert any(place.startswith(where) and what == kind for place, what in found), found
    assert not verify(home).is_clean(allow_mentions=False)
    if kind not in ("mention", "freed bytes"):  # a certificate does not say who it is about
        assert {one.kind for one in verify(home, written).left} & {kind}


def test_what_others_said_in_the_same_words_is_theirs(home: House, eraser: Eraser) -> None:
    thanks = "Thank you, that is all I wanted to know about the weather."
    both = [
        logs.interaction(thanks, response_id=f"t-{person}", user_id=person) for person in (ANN, BOB)
    ]
    with warehouse.connect(home.settings.warehouse) as con:
        from components.collect import interactions

        path = logs.write(home.log.with_name("thanks.jsonl"), both)
        interactions.load(con, path, now=logs.NOW)
    assert eraser(home.settings, Subject(ANN)).searched.left == ()
    assert any(thanks in str(row["payload"]) for row in home.raw())


def test_a_certificate_names_nobody_and_notices_a_change(
    erased: tuple[House, Path, str],
) -> None:
    home, written, _ = erased
    folder = home.settings.certificates
    assert house.holds(folder, "ann") == []
    body = json.loads(written.read_text())
    assert body["erased"]["raw.interactions"] == house.EACH
    assert body["searched"]["left"] == []
    page = written.with_suffix(".md").read_text()
    assert "Nothing is left." in page
    assert f"| raw.interactions | {house.EACH} |" in page
    written.write_text(written.read_text().replace('"raw.feedback": 2', '"raw.feedback": 1'))
    with pytest.raises(ValueError, match="was changed, or is no certificate"):
        certificate.read_id(written)


@pytest.fixture
def erased(home: House, eraser: Eraser) -> tuple[House, Path, str]:
    """A house after the erasure of one person, the certificate, and the id of an erased row."""
    with warehouse.connect(home.settings.warehouse) as con:
        ((row_id,),) = con.execute(
            "select min(interaction_id) from raw.interactions where payload ->> '$.user_id' = $ann",
            {"ann": ANN},
        ).fetchall()
    written = eraser(home.settings, Subject(ANN))
    return home, home.settings.certificates / f"{written.certificate_id}.json", row_id


def verify(home: House, certificate_path: Path | None = None) -> Searched:
    subject = None if certificate_path else Subject(ANN)
    return erase.verify(home.settings, subject=subject, certificate_path=certificate_path)
