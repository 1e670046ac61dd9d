"""A canary begins by its order, ends once, and says in its file what became of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.extensions.canary.rollout_order import HOUR, RolloutOrder, RolloutPlan, ShareStep
from components.extensions.canary.rollouts import UNPROVED_SECONDS, Rollouts
from components.extensions.canary.running_rollout import MAX_POINTS, RolloutStatus
from components.register.version_tags import DECISION_TAG, ROLLOUT_TAG, TAINTED_TAG
from components.serve import routes
from components.serve.champion_watch import RegisteredVersion
from components.serve.chat_request import read_chat
from components.serve.rollout import ArmDraw, RolloutStart
from components.serve.routes import CanaryRoute, Current, Route, Routes, Served
from components.serve.serve_metrics import ServeMetrics
from components.serve.settings import SwapSettings
from components.serve.staged_version import StagedVersion
from components.serve.staging_children import StagingError
from components.serve.swap import AdapterSwap, SwapRefusedError
from tests.support import gateways

PLAN = RolloutPlan("support", "8", "7", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR)
ORDER = RolloutOrder("0123456789ab", PLAN, None, "2026-11-27T16:00:00+00:00")
OTHER = replace(ORDER, id="ba9876543210")
SEVEN = gateways.served(Path("/bases/small"))
EIGHT = replace(SEVEN, version="8", model="support.v8-cdcdcdcdcdcd")
NINE = replace(SEVEN, version="9", model="support.v9-cdcdcdcdcdcd")
RUNNING = Route(4, SEVEN, canary=CanaryRoute(EIGHT, ORDER.to_text()))
REQUEST = read_chat(b'{"model": "support", "messages": [{"role": "user", "content": "Hi"}]}')

Scenario = Callable[[Rollouts, Current], Coroutine[None, None, None]]


def run(
    serve: Path,
    scenario: Scenario,
    route: Route | None = RUNNING,
    unproved_seconds: float = UNPROVED_SECONDS,
) -> None:
    """Run a scenario with the canaries of a folder; ``None`` leaves its routes as they are."""

    async def inside() -> None:
        if route is not None:
            Routes({"support": route}).write(serve / "routes.json")
        current = Current(routes.read(serve / "routes.json"))
        swap = AdapterSwap(serve, {}, current, SwapSettings())
        rollouts = Rollouts(swap, serve / "keys", unproved_seconds=unproved_seconds)
        rollouts.restore()
        try:
            await scenario(rollouts, current)
        finally:
            await rollouts.close()

    asyncio.run(inside())


def status(serve: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((serve / "rollouts" / "support.json").read_text())
    return content


def journal(serve: Path) -> list[tuple[str, str | None]]:
    lines = map(json.loads, (serve / "journal.jsonl").read_text().splitlines())
    return [(line["step"], line.get("outcome")) for line in lines if "canary" in line["step"]]


def version(order: RolloutOrder | str = ORDER, **tags: str) -> RegisteredVersion:
    text = order if isinstance(order, str) else order.to_text()
    return RegisteredVersion("support", "8", {DECISION_TAG: "approve", ROLLOUT_TAG: text} | tags)


def begins(start: RolloutStart | None) -> str | None:
    return None if start is None else start.id


@asynccontextmanager
async def refused(error: Exception) -> AsyncGenerator[StagedVersion]:
    """A version that can't be staged."""
    raise error
    yield  # makes it a generator


async def begin(rollouts: Rollouts, error: Exception) -> None:
    start = rollouts.see("support", "8", version(), "7")
    assert start is not None
    await start.begin(refused(error))


def draw(rollouts: Rollouts, name: str = "a", order: RolloutOrder = ORDER) -> ArmDraw | None:
    canary = CanaryRoute(EIGHT, order.to_text())
    return rollouts.draw("support", canary, "app", REQUEST, name)


@pytest.mark.parametrize(
    "content",
    [
        "",
        pytest.param("[]", marks=pytest.mark.slow),
        pytest.param('{"id": 7}', marks=pytest.mark.slow),
        '{"state": {}, "history": 3}',
        pytest.param(None, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_status_is_written_again(tmp_path: Path, content: str | None):
    (tmp_path / "rollouts").mkdir()
    text = content or json.dumps({"id": ORDER.id, "state": ["x"], "history": [1], "shadow": 1})
    (tmp_path / "rollouts" / "support.json").write_text(text)

    async def scenario(rollouts: Rollouts, current: Current) -> None:
        await rollouts.work()

    run(tmp_path, scenario)
    assert (status(tmp_path)["state"], status(tmp_path)["id"]) == ("running", ORDER.id)
    assert len(status(tmp_path)["history"]) == 1


def test_damaged_evidence_counts_as_far_as_it_can_be_read(tmp_path: Path):
    (tmp_path / "rollouts").mkdir()
    good = '{"t":3.5,"c":"a","s":0.5,"a":"canary","b":["cut"]}\n'
    bad = [
        '{"t":1e99}',
        '{"t":"x"}',
        "[" * 5_000,
        '{"t":1,"c":"a","s":7,"a":"canary"}',
        '{"t":1,"c":"a","s":0.5,"a":"nobody"}',
        '{"t":1,"c":"a","s":0.5,"a":"canary","b":["ugly"]}',
        '{"t":1,"c":"a","s":0.5,"a":"canary","b":[["cut"]]}',
        "\x00\x01",
    ]
    path = tmp_path / "rollouts" / f"{ORDER.id}.jsonl"
    path.write_text("\n".join(bad) + "\n" + good + '{"t":90000')

    async def scenario(rollouts: Rollouts, current: Current) -> None:
        await rollouts.work()
        shown = status(tmp_path)["verdict"]
        assert 3.5 <= shown["elapsed"] < 9_000
        assert shown["conversations"] == {"canary": 1, "champion": 0}
        assert {each["kind"]: each["canary"] for each in shown["kinds"]}["cut"] == 1

    run(tmp_path, scenario)


def test_clock_of_a_canary_stands_still_while_the_gateway_is_down(tmp_path: Path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / f"{ORDER.id}.jsonl").write_text('{"t":1000000.0}\n')

    async def scenario(rollouts: Rollouts, current: Current) -> None:
        await rollouts.work()
        assert 1e6 <= status(tmp_path)["verdict"]["elapsed"] < 1.01e6

    run(tmp_path, scenario)
    (last,) = (tmp_path / "rollouts" / f"{ORDER.id}.jsonl").read_text().splitlines()[-1:]
    assert 1e6 <= json.loads(last)["t"] < 1.01e6


@pytest.mark.parametrize(
    ("seen", "champion", "state", "reason"),
    [
        pytest.param(None, "7", "void", "does not exist", id="missing"),
        pytest.param(version(""), "7", "void", "reading a canary's order", id="no-order"),
        pytest.param(version("[" * 3000), "7", "void", "reading", id="hostile-order"),
        pytest.param(version(**{DECISION_TAG: "reject"}), "7", "void", "nobody", id="rejected"),
        pytest.param(version(**{TAINTED_TAG: "c1"}), "7", "void", "erased", id="tainted"),
        pytest.param(version(), "6", "void", "the champion changed", id="another-champion"),
        pytest.param(version(), None, "void", "it is nobody", id="no-champion"),
        pytest.param(
            version(replace(ORDER, plan=replace(PLAN, version="9"))),
            "7",
            "void",
            "for version 9",
            id="another-versions-order",
        ),
    ],
)
@pytest.mark.parametrize("route", [Route(4, SEVEN), RUNNING], ids=["new", "running"])
def test_what_may_not_be_a_canary_answers_nobody_and_the_file_says_why(
    tmp_path: Path,
    seen: RegisteredVersion | None,
    champion: str | None,
    state: str,
    reason: str,
    route: Route,
):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        assert rollouts.see("support", "8", seen, champion) is None
        is_readable = seen is None or seen.tags[ROLLOUT_TAG].startswith("{")
        if route is RUNNING and not is_readable:
            assert draw(rollouts) is not None  # its order is frozen in the routes
            return
        assert draw(rollouts) is None
        await rollouts.work()
        shown = status(tmp_path)
        assert shown["state"] == state
        assert reason in shown["reason"]
        assert routes.read(tmp_path / "routes.json")["support"].canary is None
        assert rollouts.see("support", "8", seen, champion) is None

    run(tmp_path, scenario, route)


def test_an_order_begins_once(tmp_path: Path):
    async def new(rollouts: Rollouts, current: Current) -> None:
        assert begins(rollouts.see("support", "8", version(), "7")) == ORDER.id

    async def running(rollouts: Rollouts, current: Current) -> None:
        assert rollouts.see("support", "8", version(), "7") is None
        rollouts.lose("support")
        assert rollouts.see("support", "8", version(), "7") is None
        await rollouts.work()

    async def ended(rollouts: Rollouts, current: Current) -> None:
        await rollouts.work()
        assert rollouts.see("support", "8", version(), "7") is None
        assert begins(rollouts.see("support", "8", version(OTHER), "7")) == OTHER.id

    run(tmp_path, new, Route(4, SEVEN))
    run(tmp_path, running)
    assert status(tmp_path)["state"] == "stopped"
    assert journal(tmp_path) == [("canary_began", None), ("canary_ended", "stopped")]
    run(tmp_path, ended, None)
    (tmp_path / "rollouts" / "support.json").unlink()
    run(tmp_path, ended, RUNNING)  # killed before the routes were written
    assert (status(tmp_path)["state"], status(tmp_path)["id"]) == ("stopped", ORDER.id)


def test_another_order_replaces_the_one_that_runs(tmp_path: Path):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        assert rollouts.see("support", "8", version(OTHER), "7") is None
        assert draw(rollouts) is None
        await rollouts.work()
        assert status(tmp_path)["state"] == "stopped"
        assert begins(rollouts.see("support", "8", version(OTHER), "7")) == OTHER.id

    run(tmp_path, scenario)


def test_a_canary_that_became_champion_ends_without_another_word(tmp_path: Path):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        assert rollouts.see("support", "8", version(), "8") is None  # the alias, before the flip
        assert draw(rollouts) is not None
        current.routes = current.routes.with_route("support", Route(5, EIGHT, SEVEN))
        await rollouts.work()
        assert draw(rollouts) is None

    run(tmp_path, scenario)
    assert status(tmp_path)["reason"] == "version 8 became champion"


def test_a_change_of_the_champion_ends_its_canary(tmp_path: Path):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        current.routes = current.routes.with_route("support", Route(5, NINE, SEVEN))
        await rollouts.work()

    run(tmp_path, scenario)
    assert status(tmp_path)["state"] == "void"


def test_what_waits_says_so_and_stops_with_its_alias(tmp_path: Path):
    async def waiting(rollouts: Rollouts, current: Current) -> None:
        await begin(rollouts, StagingError("its engine is out"))
        assert (status(tmp_path)["state"], status(tmp_path)["reason"]) == (
            "waiting",
            "its engine is out",
        )

    async def lost(rollouts: Rollouts, current: Current) -> None:
        rollouts.lose("support")
        assert status(tmp_path)["state"] == "stopped"
        assert begins(rollouts.see("support", "8", version(), "7")) == ORDER.id  # it had not begun

    async def rejected(rollouts: Rollouts, current: Current) -> None:
        reason = "one: it answers as its base"
        await begin(rollouts, SwapRefusedError(reason, reason=reason, is_wrong=True))
        await rollouts.work()
        assert rollouts.see("support", "8", version(), "7") is None

    run(tmp_path, waiting, Route(4, SEVEN))
    run(tmp_path, lost, None)
    run(tmp_path, rejected, None)
    assert status(tmp_path)["state"] == "roll back"
    assert journal(tmp_path) == [("canary_ended", "roll back")]


def test_a_route_that_a_cancelled_beginning_left_is_removed(tmp_path: Path):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        current.routes = Routes({"support": RUNNING})
        await rollouts.work()
        assert current.routes["support"].canary is None

    run(tmp_path, scenario, Route(4, SEVEN))


def test_only_some_points_of_a_long_history_are_kept():
    shown = RolloutStatus(ORDER.id, "support", "8", "7", "running", "")
    for number in range(1000):
        shown.add_point(str(number), {"share": 0.5, "kinds": []})
    times = [point["at"] for point in shown.history if isinstance(point, dict)]
    assert 100 <= len(times) <= MAX_POINTS
    assert times[-1] == "999"


def test_metrics_have_state_share_and_bad_answers_of_both_arms(tmp_path: Path):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        metrics = ServeMetrics()
        metrics.collect(rollouts.metrics)
        drawn = draw(rollouts)
        assert drawn is not None
        rollouts.note("support", drawn, {"cut", "slow"}, None)
        page = metrics.page().decode()
        name = "flywheel_serve_rollout"
        assert f'{name}_state{{state="running",version="8",workload="support"}} 1.0' in page
        assert f'{name}_share{{workload="support"}} 0.5' in page
        assert f'{name}_answers_total{{arm="{drawn.arm}",workload="support"}} 1.0' in page
        arm = f'arm="{drawn.arm}"'
        assert f'{name}_bad_answers_total{{{arm},kind="cut",workload="support"}} 1.0' in page
        rollouts.lose("support")
        await rollouts.work()
        page = metrics.page().decode()
        assert f'{name}_state{{state="stopped",version="8",workload="support"}} 1.0' in page
        assert f"{name}_share{{" not in page

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("champion", "state"),
    [
        pytest.param(SEVEN, "roll back", id="though-its-champion-is-proved"),
        pytest.param(replace(SEVEN, replicas=()), "running", id="as-its-champion"),
    ],
)
def test_a_canary_that_no_replica_proves_is_rolled_back(
    tmp_path: Path, champion: Served, state: str
):
    async def scenario(rollouts: Rollouts, current: Current) -> None:
        await rollouts.work()
        await rollouts.work()

    canary = CanaryRoute(replace(EIGHT, replicas=()), ORDER.to_text())
    run(tmp_path, scenario, Route(4, champion, canary=canary), unproved_seconds=0.0)
    assert status(tmp_path)["state"] == state
