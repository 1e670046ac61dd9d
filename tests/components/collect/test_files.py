"""The same records load equally from any container."""

import gzip
import io
import json
import traceback
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from components.collect import files, load_file, places
from components.collect.lines import Unreadable
from components.collect.source import Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import logs, telemetry, warehouses

LINES = [logs.interaction(f"Question {n}?", response_id=f"r{n}") for n in range(5)]
JSONL = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def parquet(*, nested: bool) -> bytes:
    rows = LINES if nested else [{k: text(v) for k, v in line.items()} for line in LINES]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def text(value: Json) -> Json:
    return json.dumps(value) if isinstance(value, dict) else value


def framed(message: bytes) -> bytes:
    """Return a message after its length in four bytes, as the collector's exporter writes it."""
    return len(message).to_bytes(4, "big") + message


def packed(*parts: bytes) -> bytes:
    return b"".join(zstandard.compress(part) for part in parts)


ARRAY = json.dumps(LINES).encode()
PAGE = {"object": "list", "data": LINES}
EXPORT = {"meta": {"page": 1}, "data": LINES}


@pytest.fixture(scope="module")
def lines_loaded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Connection]:
    """A warehouse with the rows of plain lines, to which a test adds none."""
    folder = tmp_path_factory.mktemp("plain")
    with warehouses.connect(folder / "warehouse.duckdb") as con:
        plain = logs.write(folder / "plain.jsonl", LINES)
        assert logs.load_input(con, Input(str(plain)), now=logs.NOW).new == 5
        yield con


@pytest.mark.parametrize(
    ("content", "form"),
    [
        pytest.param(JSONL, "lines", id="lines"),
        pytest.param(JSONL.replace(b"\n", b"\r\n\r\n"), "lines", id="crlf"),
        pytest.param(b"\xef\xbb\xbf" + JSONL, "lines", id="mark"),
        pytest.param(gzip.compress(JSONL), "lines", id="gz"),
        pytest.param(packed(JSONL), "lines", id="zst"),
        pytest.param(packed(JSONL[:100], JSONL[100:]), "lines", id="zst-in-two-frames"),
        pytest.param(ARRAY, "array", id="array"),
        pytest.param(json.dumps(LINES, indent=2).encode(), "array", id="indented"),
        pytest.param(gzip.compress(ARRAY), "array", id="array-gz"),
        pytest.param(json.dumps(PAGE, indent=1).encode(), "document", id="page"),
        pytest.param(json.dumps(EXPORT).encode(), "document", id="page-on-one-line"),
        pytest.param(parquet(nested=True), "parquet", id="parquet"),
        pytest.param(parquet(nested=False), "parquet", id="parquet-of-json-text"),
    ],
)
def test_every_container_gives_the_same_rows(
    lines_loaded: Connection, tmp_path: Path, content: bytes, form: str
):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert files.detect_form(path) == form
    loaded = logs.load_input(lines_loaded, Input(str(path)), now=logs.NOW)
    assert (loaded.source, loaded.new, loaded.quarantined) == ("fivekey", 0, 0)
    assert loaded.known == 5


@pytest.mark.parametrize(
    ("content", "good", "reason"),
    [
        pytest.param(zstandard.compress(JSONL)[:-9], None, "the zstd stream is damaged", id="zst"),
        pytest.param(ARRAY[:-1], 5, "the array ends without", id="no-end"),
        pytest.param(ARRAY[:-60], 4, "the array is damaged", id="cut-array"),
        pytest.param(ARRAY + b" {}", 5, "text follows", id="trailing"),
        pytest.param(b"[1, " + ARRAY[1:], 5, "is a JSON", id="not-objects"),
        pytest.param(b"PAR1" + b"\0" * 50, 0, "the Parquet file is damaged", id="parquet"),
    ],
)
def test_damaged_parts_go_to_quarantine_and_the_rest_loads(
    con: Connection, tmp_path: Path, content: bytes, good: int | None, reason: str
):
    path = tmp_path / "file"
    path.write_bytes(content)
    loaded = logs.load_input(con, Input(str(path)), now=logs.NOW)
    assert loaded.quarantined == 1
    assert good is None or loaded.new == good
    (row,) = warehouse.rows(con, "select reason from raw.quarantine")
    assert reason in str(row["reason"])


def test_an_array_is_read_piece_by_piece(tmp_path: Path):
    path = tmp_path / "big.json"
    path.write_text(json.dumps([{"text": "x" * 1000, "n": n} for n in range(5000)]))
    pieces = list(files.read_pieces(path, "array"))
    assert [
        json.loads(piece.text)["n"] for piece in pieces if not isinstance(piece, Unreadable)
    ] == list(range(5000))


def test_remote_files_are_found_by_glob_and_folder_and_loaded(con: Connection):
    system = fsspec.filesystem("memory")
    with system.open("/bucket/a.jsonl", "wb") as file:
        file.write(JSONL)
    with system.open("/bucket/b.jsonl.gz", "wb") as file:
        file.write(gzip.compress(JSONL))
    listed = places.matching_files("memory://bucket/*")
    assert listed == places.matching_files("memory://bucket")
    assert [name.rpartition("/")[2] for name in listed] == ["a.jsonl", "b.jsonl.gz"]
    first, second = (logs.load_input(con, Input(place), now=logs.NOW) for place in listed)
    assert (first.new, second.new, second.known) == (5, 0, 5)


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.jsonl", "/**/**", "/*/**"])
def test_links_to_folders_are_followed_but_to_none_twice(tmp_path: Path, pattern: str):
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    (folder / "2025").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (folder / "2025", elsewhere):
        logs.write(path / "a.jsonl", LINES)
        (path / "above").symlink_to(folder)
        (path / "itself").symlink_to(".")
        (path / "nothing").symlink_to("nothing")
    (folder / "linked").symlink_to(elsewhere)
    expected = [str(folder / name / "a.jsonl") for name in ("2025", "linked")]
    assert places.matching_files(f"{folder}{pattern}") == expected


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.jsonl"])
def test_hidden_files_and_those_of_hidden_folders_are_left_out(tmp_path: Path, pattern: str):
    folder = tmp_path / ".home" / "logs"
    for place in (".partial", "2025/.partial", "2025"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        logs.write(folder / place / "a.jsonl", LINES)
        logs.write(folder / place / ".b.jsonl", LINES)
    assert places.matching_files(f"{folder}{pattern}") == [str(folder / "2025" / "a.jsonl")]


def test_a_remote_glob_matches_files_and_the_folders_are_named_apart():
    system = fsspec.filesystem("memory")
    for name in ("/shelf/a.jsonl", "/shelf/2025/b.jsonl"):
        with system.open(name, "wb") as file:
            file.write(JSONL)
    assert places.matching_files("memory://shelf/*") == ["memory:///shelf/a.jsonl"]
    assert places.matching_folders("memory://shelf/*") == ["memory:///shelf/2025"]
    assert places.matching_files("memory://shelf/**") == [
        "memory:///shelf/2025/b.jsonl",
        "memory:///shelf/a.jsonl",
    ]
    assert places.matching_folders("memory://shelf") == []


def test_a_file_that_no_source_claims_is_read_as_the_kind_of_its_list(
    con: Connection, tmp_path: Path
):
    path = logs.write(tmp_path / "votes.jsonl", [{"stars": 5}])
    loaded = logs.load_input(con, Input(str(path), kind="feedback"), now=logs.NOW)
    assert (loaded.source, loaded.quarantined) == ("feedback", 1)


def test_a_dry_run_shows_the_first_records_and_stores_nothing(con: Connection, tmp_path: Path):
    path = logs.write(tmp_path / "log.jsonl", [*LINES, {"x": 1}])
    rehearsed = load_file.load(
        con, Input(str(path)), path, now=logs.NOW, within=warehouse.rehearsal, with_samples=True
    )
    assert (rehearsed.form, rehearsed.source) == ("lines", "fivekey")
    assert (rehearsed.new, rehearsed.quarantined) == (5, 1)
    assert [json.loads(record) for record in rehearsed.samples] == LINES[:3]
    for table in ("interactions", "files", "quarantine", "fields"):
        assert warehouse.rows(con, f"from raw.{table}") == []


SPAN = telemetry.call(**{"gen_ai.request.model": "gpt-4o-mini"})


@pytest.mark.parametrize(
    ("content", "requests", "damaged"),
    [
        pytest.param(SPAN, 1, 0, id="one-request"),
        pytest.param(framed(SPAN) + framed(SPAN), 2, 0, id="length-delimited"),
        pytest.param(framed(SPAN) + framed(SPAN)[:-3], 1, 1, id="cut"),
    ],
)
def test_protobuf_requests_are_read_up_to_the_cut(
    tmp_path: Path, content: bytes, requests: int, damaged: int
):
    path = tmp_path / "traces"
    path.write_bytes(content)
    assert files.detect_form(path) == "protobuf"
    pieces = list(files.read_pieces(path, "protobuf"))
    assert [isinstance(piece, Unreadable) for piece in pieces] == [False] * requests + [
        True
    ] * damaged
    source = load_file.source_of(Input(str(path)), path, "protobuf")
    assert source.NAME == "otlp"


@pytest.fixture(scope="module")
def log_server() -> Generator[str]:
    """Yield the host of a server of logs, which refuses what is called ``gone``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"" if "gone" in self.path else JSONL
            self.send_response(200 if content else 403)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_secret_of_an_address_is_stored_or_said(
    log_server: str, con: Connection, tmp_path: Path
) -> None:
    """Who has an account sees messages in Prefect and MLflow, and a lineage names the files."""
    query = "day=1&X-Amz-Signature=s3cr3t&sig=s3cr3t&access_token=s3cr3t"
    (place,) = places.matching_files(f"http://ada:s3cr3t@{log_server}/log.jsonl?{query}")
    loaded = logs.load_input(con, Input(place), now=logs.NOW)
    assert loaded.new == 5
    shown = f"http://{log_server}/log.jsonl?day=1&X-Amz-Signature=***&sig=***&access_token=***"
    assert con.execute("select path from raw.files").fetchall() == [(shown,)]
    assert "s3cr3t" not in str(loaded)
    with (
        pytest.raises(places.UnreachableError) as refused,
        places.local_copy(place.replace("log.jsonl", "gone.jsonl"), tmp_path),
    ):
        pass
    assert "gone.jsonl?day=1" in str(refused.value)
    assert "s3cr3t" not in "".join(traceback.format_exception(refused.value))
