"""What `flywheel serve status` says of gateways on several machines that share a store."""

import asyncio
import json
import os
import re
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
from s3fs import S3FileSystem
from typer.testing import CliRunner, Result

from components.extensions.machines.object_store import ObjectStore
from components.serve import routes, seen_gateways
from components.serve.follower import following
from components.serve.routes import Current, Route, Routes
from components.serve.seen_gateways import SeenChampion, SeenGateway
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from flows import gateway_status, settings
from flows.cli import main
from tests.support import buckets, gateways

STORE = ObjectStore("s3://flywheel/team")
AT = "2026-11-28T09:00:00+00:00"


def champion(version: str, *replicas: str) -> SeenChampion:
    return SeenChampion(version, AT, AT, unproved=False, replicas=replicas)


SEVEN, EIGHT = champion("7", "one", "two"), champion("8", "one")


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def home(tmp_path: Path, server: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an empty store."""
    buckets.emptied()
    monkeypatch.setenv("FLYWHEEL_STORE", STORE.url)
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def show(
    machine: str,
    champions: Mapping[str, SeenChampion],
    refused: Mapping[str, str] | None = None,
    seconds_ago: float = 0,
    clock_ahead: float = 0,
) -> None:
    at = time.time() - seconds_ago + clock_ahead
    seen_gateways.write(STORE, SeenGateway(f"{machine}-id", machine, at, champions, refused or {}))
    if seconds_ago:
        buckets.aged(f"flywheel/team/{seen_gateways.PLACE}/{machine}-id.json", seconds_ago)


def status(*options: str) -> Result:
    return CliRunner().invoke(main.app, ["serve", "status", *options])


def test_all_gateways_are_shown_though_none_runs_in_this_home(home: Path):
    show("box", {"support": SEVEN})
    show("van", {"support": SEVEN, "billing": champion("2", "one")})
    ended = status()
    assert ended.exit_code == 0, ended.output
    rows = [line.split() for line in ended.output.splitlines()[1:]]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("box", "support", "7"),
        ("van", "billing", "2"),
        ("van", "support", "7"),
    ]
    report = json.loads(status("--json").output)
    assert report["routes"] == {}  # of this home, for programs that read them
    told = report["gateways"]
    assert [(one["machine"], sorted(one["champions"])) for one in told] == [
        ("box", ["support"]),
        ("van", ["billing", "support"]),
    ]


@pytest.mark.parametrize(
    ("champions", "refused", "problem"),
    [
        pytest.param(
            EIGHT, {}, "support: gateways serve different versions: 7 at box, 8 at van", id="differ"
        ),
        pytest.param(champion("7"), {}, "none", id="no-replica"),
        pytest.param(
            SEVEN, {"support@8": "its base"}, "refused at van van-id: support@8: its base", id="bad"
        ),
    ],
)
def test_one_gateway_that_lags_behind_fails_the_command(
    home: Path, champions: SeenChampion, refused: dict[str, str], problem: str
):
    show("box", {"support": SEVEN})
    show("van", {"support": champions}, refused)
    ended = status()
    assert ended.exit_code == 1
    assert problem in ended.output


def test_a_gateway_that_was_killed_is_named_for_a_day_and_fails_nothing(home: Path):
    show("box", {"support": SEVEN})
    show("van", {"support": EIGHT}, seconds_ago=600)
    show("old", {"support": EIGHT}, seconds_ago=90_000)
    ended = status()
    assert ended.exit_code == 0, ended.output
    assert "van van-id has not written since" in ended.output
    assert "old" not in ended.output


@pytest.mark.parametrize("wrong", [86_400 * 365, -7_200])
def test_a_gateway_runs_as_long_as_it_writes_whatever_its_clock_shows(home: Path, wrong: float):
    show("van", {"support": SEVEN}, clock_ahead=wrong)
    show("box", {"support": EIGHT}, seconds_ago=600, clock_ahead=wrong)
    ended = status()
    assert ended.exit_code == 0, ended.output
    assert ended.output.splitlines()[1].startswith("van van-id")
    assert "box box-id has not written since" in ended.output
    side = "ahead of" if wrong > 0 else "behind"
    told = re.search(rf"the clock of van van-id is ([\d,]+) s {side} the store's", ended.output)
    assert told is not None
    assert int(told[1].replace(",", "")) == pytest.approx(abs(wrong), abs=30)


def test_only_gateways_that_are_gone_are_none(home: Path):
    show("van", {"support": SEVEN}, seconds_ago=600)
    ended = status()
    assert ended.exit_code == 1
    assert "no gateway has run in this home" in ended.output


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"at": "soon", "champions": {}}', '{"at": 1.5}', "[" * 100_000, b"\xff"],
    ids=["empty", "array", "cut", "no-time", "no-workloads", "deep", "bytes"],
)
def test_what_no_gateway_wrote_hides_none(home: Path, text: str | bytes):
    show("box", {"support": SEVEN})
    content = text if isinstance(text, bytes) else text.encode()
    S3FileSystem().pipe_file(f"flywheel/team/{seen_gateways.PLACE}/forged.json", content)
    ended = status()
    assert ended.exit_code == 0, ended.output
    assert "box" in ended.output


def test_where_the_store_is_away_the_gateway_of_the_home_is_shown_and_why_not_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    (home / "serve").mkdir()
    served = {"version": "7", "since": AT, "proved_at": AT, "unproved": False, "model": "m"}
    own = {"routes": {"support": {"champion": served | {"replicas": ["one"]}}}, "refused": []}
    (home / "serve" / "status.json").write_text(json.dumps(own | {"knowledge_age_seconds": 1.0}))
    assert status().exit_code == 0
    buckets.take_away(monkeypatch)
    ended = status()
    S3FileSystem.clear_instance_cache()
    assert ended.exit_code == 1
    assert "support" in ended.output
    assert "reading which gateways run" in ended.output


def test_a_workloads_page_says_what_other_machines_serve(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    (home / "serve").mkdir()
    (home / "serve" / seen_gateways.ID_FILE).write_text("own-id")
    show("own", {"support": SEVEN})
    show("box", {"support": SEVEN, "billing": EIGHT})
    show("van", {"support": SEVEN})
    show("old", {"support": EIGHT}, seconds_ago=600)
    where = settings.load()
    told = gateway_status.describe(where, "support")
    assert told == "no gateway of this home runs; version 7 at box, van since 2026-11-28 09:00"
    buckets.take_away(monkeypatch)
    told = gateway_status.describe(where, "support")
    S3FileSystem.clear_instance_cache()
    assert told.endswith("not known: the object store can't be reached")


def test_a_gateway_shows_whom_it_serves_and_leaves_when_it_ends(home: Path):
    replica = {"name": "one", "url": "http://127.0.0.1:9"}
    options = ServeSettings.model_validate({"engine": {"kind": "vllm", "replicas": [replica]}})
    served = gateways.served(home / "base")
    Routes({"support": Route(3, served)}).write(home / "serve" / "routes.json")

    async def gateway() -> None:
        current = Current(routes.read(home / "serve" / "routes.json"))
        async with following(options, ServePlaces(home), None, current, STORE):
            async with asyncio.timeout(60):
                while not (shown := await asyncio.to_thread(seen_gateways.read, STORE)):
                    await asyncio.sleep(0.05)
            assert [(one.machine, one.id) for one in shown] == [
                (os.uname().nodename, seen_gateways.read_id(home / "serve"))
            ]
            (champion,) = shown[0].champions.values()
            assert (champion.version, champion.since) == (served.version, served.since)
            assert "(this)" in (await asyncio.to_thread(status)).output

    asyncio.run(gateway())
    assert seen_gateways.read(STORE) == []
