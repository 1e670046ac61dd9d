"""The ``collect`` flow as a workload file asks for it: with retention, and from MLflow."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import mlflow
import pytest
import yaml
from mlflow import tracing
from mlflow.entities import AssessmentSource, SpanType

from components.collect.source import NO_DEFAULTS, Defaults, Input
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Row
from flows import settings, sources
from tests.support import buckets, logs, warehouses

DAY = 86_400
DEFAULTS: dict[str, Json] = {"workload_id": "support", "client_id": "app"}


@pytest.fixture
def home(
    home: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[settings.Settings]:
    """The test's own home, with a model folder next to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    tracing.reset()  # traces go to the store that was first named, else
    yield home
    tracing.reset()


def workload(folder: Path, **changes: Json) -> str:
    path = folder / "support.yaml"
    path.write_text(yaml.safe_dump({"workload": "support", "base": "base", **changes}))
    return str(path)


def traced(response_id: str) -> str:
    """Record a call of a model; return the id of its trace.

    It names its experiment: one that is set stays so for all tests of the process.
    """
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name("agent")
    span = mlflow.start_span_no_context(
        "chat",
        span_type=SpanType.CHAT_MODEL,
        inputs={"messages": [{"role": "user", "content": "Hello?"}]},
        experiment_id=known.experiment_id if known else client.create_experiment("agent"),
    )
    span.set_outputs({"id": response_id, "choices": [{"message": logs.say("Hi.")}]})
    span.end()
    return span.trace_id


def liked(trace_id: str) -> None:
    ann = AssessmentSource(source_type="HUMAN", source_id="ann")
    mlflow.log_feedback(trace_id=trace_id, name="thumbs_up", value=True, source=ann)


@contextmanager
def refusing(records: Mapping[str, Json], *, status: int | None = None) -> Generator[str]:
    """Serve files over HTTP; other paths are answered with this status, or that in their name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            record = records.get(self.path)
            self.send_response(200 if record else status or int(self.path[1:4]))
            self.end_headers()
            self.wfile.write(json.dumps(record).encode())

        do_POST = do_GET  # noqa: N815 - as http.server names them

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def rows(home: settings.Settings, sql: str) -> list[Row]:
    with warehouses.connect(home.warehouse) as con:
        return warehouse.rows(con, sql)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_a_workload_with_retention_archives_its_old_rows_once_they_are_loaded(
    home: settings.Settings, tmp_path: Path
):
    from flows.collect import collect

    today = int(datetime.now(UTC).timestamp())
    lines = [
        logs.interaction(response_id=f"r{days}", timestamp=today - days * DAY, workload_id=name)
        for days, name in ((1, "support"), (40, "support"), (50, "support"), (60, "other"))
    ]
    logs.write(tmp_path / "log.jsonl", lines)
    config = workload(tmp_path, sources={"logs": ["log.jsonl"]}, retention_days=30)
    summary = collect(config)
    assert summary == (
        "4 new rows from 1 new of 1 files, 0 lines in quarantine; 2 old rows archived"
    )
    left = rows(home, "select payload ->> '$.response.id' as id from raw.interactions order by id")
    assert [row["id"] for row in left] == ["r1", "r60"]
    assert list(home.archive.rglob("*.parquet"))
    assert collect(config).endswith("; 0 old rows archived")


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_a_workload_may_name_an_experiment_and_the_client_of_its_traces(
    home: settings.Settings, tmp_path: Path
):
    from flows.collect import collect

    liked(traced("r1"))
    config = workload(tmp_path, sources={"logs": [{"path": "mlflow:agent", **DEFAULTS}]})
    assert collect(config) == "2 new rows from 1 new of 1 files, 0 lines in quarantine"
    assert collect(config) == "0 new rows from 0 new of 1 files, 0 lines in quarantine"
    (row,) = rows(home, "select * from raw.interactions")
    assert (row["workload_id"], row["client_id"], row["source"]) == ("support", "app", "mlflow")
    record = json.loads(str(row["record"]))
    assert record["request"]["messages"] == [{"role": "user", "content": "Hello?"}]
    (vote,) = rows(home, "select response_id, kind from raw.feedback")
    assert vote == {"response_id": "r1", "kind": "thumb"}


@pytest.mark.slow
def test_of_an_experiment_only_what_is_new_is_pulled_and_late_feedback_comes_for_a_month(
    home: settings.Settings,
):
    experiment = Input("mlflow:agent", defaults=Defaults("support", "app"))
    now = datetime.now(UTC)
    old = traced("r1")

    def collected(days: int) -> tuple[int, int]:
        (loaded,) = sources.load_inputs(
            home.warehouse, [experiment], now=now + timedelta(days=days)
        )
        return loaded.new, loaded.known

    assert collected(0) == (1, 0)
    traced("r2")
    assert collected(1) == (1, 0)
    liked(old)
    assert collected(20) == (1, 2)
    liked(old)
    traced("r3")
    assert collected(25) == (2, 3)
    traced("r4")
    assert collected(40) == (1, 0)
    liked(old)
    assert collected(50) == (0, 0)
    assert len(rows(home, "from raw.interactions")) == 4


@pytest.mark.slow
def test_a_dry_run_of_an_experiment_shows_its_calls_and_stores_nothing(home: settings.Settings):
    traced("r1")
    experiment = Input("mlflow:agent", defaults=Defaults("support", "app"))
    (rehearsed,) = sources.load_inputs(
        home.warehouse, [experiment], now=datetime.now(UTC), dry_run=True
    )
    assert (rehearsed.new, rehearsed.source) == (1, "mlflow")
    assert json.loads(rehearsed.samples[0])["response"]["id"] == "r1"
    assert rows(home, "from raw.interactions") == []


def test_a_file_that_is_gone_keeps_no_other_file_from_being_loaded(
    home: settings.Settings, tmp_path: Path
):
    good = logs.write(tmp_path / "b.jsonl", [logs.interaction()])
    inputs = [Input(str(tmp_path / "a.jsonl")), Input(str(good)), Input(str(tmp_path / "c.jsonl"))]
    with pytest.raises(
        sources.UnreadFilesError, match=r"2 places can't be read.*a\.jsonl.*c\.jsonl"
    ):
        list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert rows(home, "select path, rows from raw.files") == [{"path": str(good), "rows": 1}]


def test_a_remote_file_that_is_gone_keeps_no_other_file_from_being_loaded(
    home: settings.Settings, tmp_path: Path
):
    system = fsspec.filesystem("memory")
    signed = f"b.jsonl?signature={'x' * 300}"  # longer than a local file's name may be
    with system.open(f"/traffic/{signed}", "wb") as file:
        file.write(json.dumps(logs.interaction("Rain?")).encode())
    here = logs.write(tmp_path / "c.jsonl", [logs.interaction("Wind?")])
    inputs = [
        Input("memory://traffic/a.jsonl"),
        Input(f"memory://traffic/{signed}"),
        Input(str(here)),
    ]
    with pytest.raises(sources.UnreadFilesError, match=r"1 places can't be read.*a\.jsonl"):
        list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert rows(home, "select sum(rows) as rows from raw.files") == [{"rows": 2}]


def test_a_place_whose_server_refuses_keeps_no_other_from_being_loaded(
    home: settings.Settings, tmp_path: Path
):
    with refusing({"/good": logs.interaction("Rain?")}) as server:
        places = [f"{server}/{name}" for name in ("403.jsonl", "404.jsonl", "500.jsonl", "good")]
        here = logs.write(tmp_path / "c.jsonl", [logs.interaction("Wind?")])
        inputs = [*map(Input, places), Input(str(here))]
        reasons = r"3 places.*reaching http.*/403\.jsonl: 403.*/404\.jsonl.*/500\.jsonl: 500"
        with pytest.raises(sources.UnreadFilesError, match=reasons):
            list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert rows(home, "select sum(rows) as rows from raw.files") == [{"rows": 2}]


def test_a_server_that_is_away_is_waited_for_once(home: settings.Settings, tmp_path: Path):
    here = logs.write(tmp_path / "c.jsonl", [logs.interaction()])
    inputs = [*(Input(f"http://127.0.0.1:9/{n}.jsonl") for n in range(30)), Input(str(here))]
    reasons = r"30 places can't be read, .*; and 10 more$"
    with pytest.raises(sources.UnreadFilesError, match=reasons) as error:
        list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert str(error.value).count("http://127.0.0.1:9 did not answer a moment ago") == 19
    assert rows(home, "select sum(rows) as rows from raw.files") == [{"rows": 1}]


@pytest.mark.slow
def test_an_experiment_that_is_gone_keeps_no_file_from_being_loaded(
    home: settings.Settings, tmp_path: Path
):
    here = logs.write(tmp_path / "c.jsonl", [logs.interaction()])
    inputs = [Input("mlflow:renamed"), Input(str(here))]
    with pytest.raises(sources.UnreadFilesError, match="there is no experiment 'renamed'"):
        list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert rows(home, "select sum(rows) as rows from raw.files") == [{"rows": 1}]


def test_an_mlflow_that_refuses_the_account_keeps_no_file_from_being_loaded(
    home: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = logs.write(tmp_path / "c.jsonl", [logs.interaction()])
    with refusing({}, status=403) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        inputs = [Input("mlflow:agent"), Input(str(here))]
        with pytest.raises(sources.UnreadFilesError, match=r"traces of 'agent': .*403"):
            list(sources.load_inputs(home.tables, inputs, now=logs.NOW))
    assert rows(home, "select sum(rows) as rows from raw.files") == [{"rows": 1}]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.slow
def test_a_bucket_without_permission_fails_the_run_after_all_else_was_loaded_and_archived(
    home: settings.Settings, tmp_path: Path
):
    from flows.collect import collect

    today = int(datetime.now(UTC).timestamp())
    old, new = (
        logs.interaction(response_id=id_, timestamp=at)
        for id_, at in (("old", today - 40 * DAY), ("new", today - DAY))
    )
    logs.write(tmp_path / "log.jsonl", [{**old, "workload_id": "support"}, new])
    places: list[Json] = [
        "log.jsonl",
        f"s3://{buckets.NAME}/secret/*.jsonl",
        f"s3://{buckets.NAME}/a/*.jsonl",
    ]
    config = workload(tmp_path, sources={"logs": places}, retention_days=30)
    with buckets.serving(closed=[("LIST", "secret/")]):
        s3 = fsspec.filesystem("s3")
        s3.pipe(f"{buckets.NAME}/a/a.jsonl", json.dumps(logs.interaction("Rain?")).encode())
        with pytest.raises(sources.UnreadFilesError) as error:
            collect(config)
    summary = "3 new rows from 2 new of 2 files, 0 lines in quarantine; 1 old rows archived; "
    denied = f"reaching s3://{buckets.NAME}/secret/*.jsonl: Access Denied"
    assert str(error.value) == f"{summary}1 places can't be read, all others were: {denied}"
    assert rows(home, "select count(*) as count from raw.interactions") == [{"count": 2}]


def test_a_survey_gives_defaults_to_the_small_files_that_lack_them_only(
    home: settings.Settings, tmp_path: Path
):
    whole = logs.interaction(response_id="r0")
    lacking = [
        logs.without(logs.interaction(response_id=f"r{number}"), "workload_id", "client_id")
        for number in (1, 2)
    ]
    inputs = [
        Input(str(logs.write(tmp_path / f"{number}.jsonl", [row])))
        for number, row in enumerate([whole, *lacking])
    ]
    defaults = Defaults("support", "shop")
    for is_again in (False, True):
        surveyed = [*sources.load_survey(home.tables, inputs, defaults, now=logs.NOW)]
        assert [file.input.defaults for file in surveyed] == [NO_DEFAULTS, defaults, defaults]
        assert [file.loaded.skipped for file in surveyed] == [is_again] * 3
    assert rows(home, "select workload_id from raw.interactions order by all") == [
        {"workload_id": name} for name in ("support", "support", "weather")
    ]


def test_a_dry_run_of_small_files_says_of_each_what_a_collect_does(
    home: settings.Settings, tmp_path: Path
):
    paths = [
        logs.write(tmp_path / f"{number}.jsonl", [logs.interaction(response_id=f"r{number}")])
        for number in range(6)
    ]
    logs.write(paths[2], [logs.interaction(response_id=f"r{number}") for number in (1, 2)])
    logs.write(paths[4], [logs.interaction(workload_id=7), logs.interaction("Four?")])
    inputs = [Input(str(path)) for path in paths]
    (first,) = sources.load_inputs(home.tables, inputs[:1], now=logs.NOW)
    assert first.new == 1
    rehearsed = [*sources.load_inputs(home.tables, inputs, now=logs.NOW, dry_run=True)]
    assert all(each.samples for each in rehearsed)
    assert rows(home, "select count(*) as count from raw.interactions") == [{"count": 1}]
    loaded = [*sources.load_inputs(home.tables, inputs, now=logs.NOW)]
    assert [replace(each, form="", samples=()) for each in rehearsed] == loaded
    assert [each.new for each in loaded] == [0, 1, 1, 1, 1, 1]
