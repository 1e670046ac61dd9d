"""Canaries of gateways that share an object store and no folder: one evidence, one end."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from s3fs import S3FileSystem

from components.extensions.canary import rollout_evidence, shared_rollouts
from components.extensions.canary.rollout_evidence import AnswerLine, ClockLine, EvidenceFile
from components.extensions.canary.rollout_order import HOUR, RolloutOrder, RolloutPlan, ShareStep
from components.extensions.canary.rollout_sharing import RolloutSharing
from components.extensions.canary.rollouts import Rollouts
from components.extensions.canary.running_rollout import RolloutStatus
from components.extensions.canary.shared_rollouts import SharedEvidence
from components.extensions.machines.object_store import DamagedObjectError, ObjectStore
from components.schema import Json
from components.serve import response_id, routes
from components.serve.chat_request import read_chat
from components.serve.routes import CanaryRoute, Current, Route, Routes
from components.serve.settings import SwapSettings
from components.serve.swap import AdapterSwap
from tests.support import buckets, gateways
from tests.support.gateways import RunningGateway

STORE = ObjectStore("s3://flywheel/team")
PLAN = RolloutPlan("support", "8", "7", (ShareStep(0.5, HOUR),), deadline_seconds=HOUR)
ORDER = RolloutOrder("0123456789ab", PLAN, None, "2026-11-27T16:00:00+00:00")
SEVEN = gateways.served(Path("/bases/small"))
EIGHT = replace(SEVEN, version="8", model="support.v8-cdcdcdcdcdcd")
REQUEST = read_chat(b'{"model": "support", "messages": [{"role": "user", "content": "Hi"}]}')
NUMBERS = count()

Scenario = Callable[["Gateway", "Gateway"], Coroutine[None, None, None]]


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def store(server: None) -> ObjectStore:
    buckets.emptied()
    return STORE


class Gateway:
    """The canaries of one gateway, in a folder of its own."""

    def __init__(self, folder: Path, order: RolloutOrder, store: ObjectStore | None) -> None:
        self.serve, self.order = folder / "serve", order
        if not (self.serve / "routes.json").exists():
            canary = CanaryRoute(EIGHT, order.to_text())
            Routes({"support": Route(4, SEVEN, canary=canary)}).write(self.serve / "routes.json")
        if store is not None:
            response_id.share_key(self.serve / "keys", store)
        self.current = Current(routes.read(self.serve / "routes.json"))
        swap = AdapterSwap(self.serve, {}, self.current, SwapSettings())
        self.rollouts = Rollouts(swap, self.serve / "keys", store=store)
        self.rollouts.restore()

    def arm(self, name: str) -> str | None:
        """Draw a conversation; ``None`` if the canary does not run."""
        canary = CanaryRoute(EIGHT, self.order.to_text())
        draw = self.rollouts.draw("support", canary, "app", REQUEST, name)
        return None if draw is None else draw.arm

    def answer(self, name: str, *kinds: Any, answer_id: str | None = None) -> str:
        """Answer in a conversation; return the arm that did."""
        canary = CanaryRoute(EIGHT, self.order.to_text())
        draw = self.rollouts.draw("support", canary, "app", REQUEST, name)
        assert draw is not None
        self.rollouts.note("support", draw, kinds, answer_id)
        return draw.arm

    def give_bad_canaries(self, number: int) -> None:
        """Answer conversations until so many are the canary's, whose answers are cut."""
        while number:
            name = f"{next(NUMBERS)}"
            if self.arm(name) == "canary":
                self.answer(name, "cut")
                number -= 1

    @property
    def status(self) -> dict[str, Any]:
        return self.rollouts.statuses.known("support")

    @property
    def evidence(self) -> Path:
        return self.serve / "rollouts" / f"{self.order.id}.jsonl"


def run(
    folder: Path,
    scenario: Scenario,
    store: ObjectStore | None,
    order: RolloutOrder = ORDER,
) -> None:
    """Run a scenario with two gateways, and end them."""

    async def inside() -> None:
        both = [Gateway(folder / name, order, store) for name in "ab"]
        try:
            await scenario(*both)
        finally:
            for gateway in both:
                await gateway.rollouts.close()

    asyncio.run(inside())


def overwrite(place: str, content: bytes) -> None:
    """Damage an object."""
    S3FileSystem(use_listings_cache=False).pipe_file(f"flywheel/team/{place}", content)


def canary_of(gateway: Gateway) -> CanaryRoute | None:
    route = gateway.current.routes.get("support")
    return None if route is None else route.canary


def test_a_canary_is_judged_by_what_all_gateways_saw(tmp_path: Path, store: ObjectStore):
    async def scenario(first: Gateway, second: Gateway) -> None:
        first.give_bad_canaries(7)
        second.give_bad_canaries(7)
        for gateway in (first, second, first, second):
            await gateway.rollouts.work()
        states.append((first.status["state"], second.status["state"]))

    states: list[tuple[str, str]] = []
    run(tmp_path / "apart", scenario, None)  # neither has seen enough by itself
    run(tmp_path / "together", scenario, store)
    assert states == [("running", "running"), ("roll back", "roll back")]


def test_one_end_is_everybodys_and_no_gateway_begins_again(tmp_path: Path, store: ObjectStore):
    async def scenario(first: Gateway, second: Gateway) -> None:
        await first.rollouts.work()
        await second.rollouts.work()
        first.rollouts.end("support", "roll back", "people shouted")
        assert second.arm("x") is not None
        await first.rollouts.work()
        await second.rollouts.work()
        assert second.status["state"] == "roll back"
        assert "people shouted" in second.status["reason"]
        assert second.arm("x") is None
        assert canary_of(first) is None
        assert canary_of(second) is None
        late = Gateway(tmp_path / "late", ORDER, store)
        await late.rollouts.work()
        assert (late.status["state"], late.arm("x")) == ("roll back", None)

    run(tmp_path, scenario, store)


def test_of_two_different_ends_the_first_one_counts(tmp_path: Path, store: ObjectStore):
    async def scenario(first: Gateway, second: Gateway) -> None:
        first.rollouts.end("support", "stopped", "its alias was removed")
        second.rollouts.end("support", "roll back", "no replica proves it")
        await second.rollouts.work()
        await first.rollouts.work()
        assert first.status["state"] == second.status["state"] == "roll back"

    run(tmp_path, scenario, store)


@pytest.mark.parametrize("state", ["running", "waiting", None, ["hold"]])
def test_an_end_that_is_none_ends_the_canary_as_void(
    tmp_path: Path, store: ObjectStore, state: Any
):
    async def scenario(first: Gateway, _: Gateway) -> None:
        shared_rollouts.end_once(store, ORDER.id, {"state": state})
        await first.rollouts.work()
        assert (first.status["state"], canary_of(first)) == ("void", None)

    run(tmp_path, scenario, store)


def test_conversations_are_drawn_alike_and_keep_the_share_of_their_first_gateway(
    tmp_path: Path, store: ObjectStore
):
    steps = (ShareStep(0.5, 1e-6), ShareStep(0.9, HOUR))
    order = replace(ORDER, plan=replace(PLAN, steps=(ShareStep(0.5, HOUR),)))

    async def scenario(first: Gateway, second: Gateway) -> None:
        names = [f"n{number}" for number in range(30)]
        arms = {name: first.answer(name) for name in names}
        assert {*arms.values()} == {"champion", "canary"}
        assert {name: second.arm(name) for name in names[:15]} == dict(list(arms.items())[:15])
        await first.rollouts.work()
        await second.rollouts.work()
        active = second.rollouts._active["support"]  # pyright: ignore[reportPrivateUsage]
        active.order = replace(order, plan=replace(PLAN, steps=steps))
        assert {name: second.arm(name) for name in names} == arms
        assert second.arm("a new one") is not None

    run(tmp_path, scenario, store, order)


def test_a_dislike_at_another_gateway_counts_for_who_answered(tmp_path: Path, store: ObjectStore):
    async def scenario(first: Gateway, second: Gateway) -> None:
        arm = first.answer("a", answer_id="chatcmpl-short-support")
        second.rollouts.dislike("support", "chatcmpl-short-support", "thumb", "down")
        for gateway in (first, second, first):
            await gateway.rollouts.work()
        kinds = {each["kind"]: each for each in first.status["verdict"]["kinds"]}
        assert kinds["disliked"][arm] == 1

    run(tmp_path, scenario, store)


def test_with_the_store_away_a_bad_canary_ends_here_at_once_and_elsewhere_later(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    async def scenario(first: Gateway, second: Gateway) -> None:
        there = os.environ["AWS_ENDPOINT_URL"]
        buckets.take_away(monkeypatch)
        await first.rollouts.work()
        assert first.arm("x") is not None  # a while without the store ends nothing
        first.rollouts.end("support", "roll back", "no replica proves it")
        await first.rollouts.work()
        assert (first.status["state"], canary_of(first)) == ("roll back", None)
        monkeypatch.setenv("AWS_ENDPOINT_URL", there)
        S3FileSystem.clear_instance_cache()
        await second.rollouts.work()
        assert second.status["state"] == "running"
        await first.rollouts.work()
        await second.rollouts.work()
        assert second.status["state"] == "roll back"

    run(tmp_path, scenario, store)


def evidence(folder: Path, gateway: str, store: ObjectStore) -> tuple[EvidenceFile, SharedEvidence]:
    own = EvidenceFile(folder / f"{gateway}.own")
    shared = SharedEvidence(store, "one", folder / f"{gateway}.jsonl", own.path, gateway)
    return own, shared


def test_every_copy_has_every_line_once_in_one_order_whoever_is_killed_when(
    tmp_path: Path, store: ObjectStore
):
    owns = {name: evidence(tmp_path, name, store)[0] for name in "ab"}
    progress = {name: tmp_path / f"{name}.progress" for name in "ab"}
    for number in range(12):
        name = "ab"[number % 2]
        owns[name].append(ClockLine(float(number)))
        shared = evidence(tmp_path, name, store)[1]  # a start after a kill
        before = progress[name].read_bytes() if progress[name].exists() else None
        shared.exchange(is_sending=number % 3 != 0)
        if number % 4 == 0:  # killed after the store had it, and before it was known here
            progress[name].unlink(missing_ok=True)
            if before is not None:
                progress[name].write_bytes(before)
    for _ in range(2):
        for name in "ab":
            evidence(tmp_path, name, store)[1].exchange(is_sending=True)
    reader = SharedEvidence(store, "one", tmp_path / "reader.jsonl")
    reader.exchange(is_sending=False)
    copies = {(tmp_path / f"{name}.jsonl").read_bytes() for name in ("a", "b", "reader")}
    assert len(copies) == 1
    assert sorted(times(tmp_path / "a.jsonl")) == [float(number) for number in range(12)]


def times(copy: Path) -> list[float]:
    return [line.elapsed for line in rollout_evidence.read_lines(copy)]


def test_gateways_of_a_home_and_its_copy_lose_no_line(tmp_path: Path, store: ObjectStore):
    homes = [tmp_path / name for name in ("home", "copy")]
    for home in homes:
        home.mkdir()
    both = [evidence(home, "a", store) for home in homes]
    for number in range(6):
        own, shared = both[number % 2]
        own.append(ClockLine(float(number)))
        shared.exchange(is_sending=True)
    for own, shared in both:
        shared.exchange(is_sending=True)
        assert times(own.path.with_suffix(".jsonl")) == [float(number) for number in range(6)]


def test_a_gateway_whose_last_lines_a_power_failure_took_sends_the_next_ones(
    tmp_path: Path, store: ObjectStore
):
    own, shared = evidence(tmp_path, "a", store)
    for number in (1, 2):
        own.append(ClockLine(float(number)))
    shared.exchange(is_sending=True)
    own.close()
    os.truncate(own.path, own.path.stat().st_size // 2)
    (own.path.with_suffix(".progress")).unlink()
    own, shared = evidence(tmp_path, "a", store)
    for number in (3, 4, 5):
        own.append(ClockLine(float(number)))
    shared.exchange(is_sending=True)
    assert {*times(tmp_path / "a.jsonl")} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_a_gateway_that_ends_during_an_exchange_copies_nothing_twice(
    tmp_path: Path, store: ObjectStore
):
    own, shared = evidence(tmp_path, "a", store)
    for number in range(6):
        own.append(ClockLine(float(number)))
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(shared.exchange, is_sending=True) for _ in range(2)]:
                done.result()
    copy = tmp_path / "a.jsonl"
    assert copy.read_bytes() == own.path.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600


class FailingStore(ObjectStore):
    """A store that fails at the second object of a log, once."""

    failures = 1

    def read(self, place: str) -> str | None:
        if place.endswith("/00000001") and FailingStore.failures:
            FailingStore.failures -= 1
            raise OSError("the store is away")
        return super().read(place)


def test_what_was_read_before_the_store_failed_is_not_forgotten(tmp_path: Path, store: ObjectStore):
    own, shared = evidence(tmp_path, "a", store)
    for number in (1, 2):
        own.append(ClockLine(float(number)))
        shared.exchange(is_sending=True)
    other = evidence(tmp_path, "b", FailingStore(store.url))[1]
    with pytest.raises(OSError, match="away"):
        other.exchange(is_sending=False)
    assert other.exchange(is_sending=False) == [ClockLine(1.0), ClockLine(2.0)]


@pytest.mark.parametrize(
    "damage", [b"", b"no JSON", b"[]", b"{}\n{}", b"\xff", b"[" * 100_000, None]
)
def test_a_damaged_object_is_refused_and_ends_nothing(
    tmp_path: Path, store: ObjectStore, damage: bytes | None
):
    own, shared = evidence(tmp_path, "a", store)
    own.append(ClockLine(1.0))
    shared.exchange(is_sending=True)
    text = store.read("rollouts/one/00000000") or ""
    overwrite("rollouts/one/00000000", damage or text.replace("1.0", "2.0").encode())
    with pytest.raises(DamagedObjectError, match="rollouts/one/00000000"):
        evidence(tmp_path, "b", store)[1].exchange(is_sending=True)
    assert (tmp_path / "b.jsonl").read_bytes() == b""


def test_a_gateways_old_standing_is_not_written_over_another_ones(store: ObjectStore):
    sharing = RolloutSharing(store)
    running = [
        RolloutStatus(name, name, "8", "7", "running", "", verdict={"looks": 1})
        for name in ("support", "billing")
    ]

    async def look() -> None:
        for status in running:
            await sharing.share_standing(status)

    asyncio.run(look())
    newer: dict[str, Json] = {**running[0].content(), "verdict": {"looks": 2}}
    shared_rollouts.write_standing(store, "support", newer)  # another gateway's
    asyncio.run(look())
    assert json.loads(shared_rollouts.read_standing(store, "support") or "") == newer


def test_evidence_is_deleted_only_when_the_canary_has_ended(tmp_path: Path, store: ObjectStore):
    own, shared = evidence(tmp_path, "a", store)
    own.append(ClockLine(1.0))
    shared.exchange(is_sending=True)
    shared_rollouts.remove_evidence(store, "one")
    assert store.names("rollouts/one") == ["00000000"]
    shared_rollouts.end_once(store, "one", {"state": "hold"})
    shared_rollouts.remove_evidence(store, "one")
    assert store.names("rollouts/one") == ["end.json"]


@pytest.mark.parametrize("place", ["00000000", "end.json"])
def test_a_damaged_object_keeps_no_canary_from_being_ended(
    tmp_path: Path, store: ObjectStore, place: str
):
    async def scenario(first: Gateway, second: Gateway) -> None:
        overwrite(f"rollouts/{ORDER.id}/{place}", b"\xff")
        await first.rollouts.work()
        assert first.arm("x") is not None
        first.rollouts.end("support", "roll back", "no replica proves it")
        await first.rollouts.work()
        assert (first.status["state"], canary_of(first)) == ("roll back", None)

    run(tmp_path, scenario, store)


@pytest.mark.slow
@pytest.mark.lake
def test_two_gateways_of_which_one_is_killed_send_a_bad_canary_back(
    tmp_path: Path, store: ObjectStore
):
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    bad = gateways.script(models={gateways.CANARY["model"]: {"say": "x", "finish": "length"}})
    arms = dict[str, set[str]]()

    def ask(gateway: RunningGateway, name: str) -> None:
        answer = gateway.ask(bad, metadata={"conversation_id": name})
        assert answer.status_code == 200, answer.text
        arms.setdefault(name, set()).add(gateway.served(answer)["arm"])

    def state(home: Path) -> str:
        path = home / "serve" / "rollouts" / "support.json"
        return str(json.loads(path.read_text())["state"]) if path.exists() else ""

    with (
        gateways.running(homes[0], canary=ORDER, store=store, is_forked=False) as first,
        gateways.running(homes[1], canary=ORDER, store=store, is_forked=False) as second,
    ):
        for number in range(4):
            ask(first, str(number))
            ask(second, str(number))
        first.kill()
        assert {len(drawn) for drawn in arms.values()} == {1}
        with gateways.resumed(first, store) as again:
            for number in range(4, 400):
                ask(again if number % 2 else second, str(number))
                if {state(home) for home in homes} == {"roll back"}:
                    break
                time.sleep(0.05)
            while {state(home) for home in homes} != {"roll back"}:
                time.sleep(0.1)
            for gateway in (again, second):
                ask(gateway, "later")
            assert arms["later"] == {"champion"}
    copies = {
        (home / "serve" / "rollouts" / f"{ORDER.id}.jsonl").read_bytes()[:1000] for home in homes
    }
    assert len(copies) == 1
    lines = [*rollout_evidence.read_lines(homes[0] / "serve" / "rollouts" / f"{ORDER.id}.jsonl")]
    drawn = [(line.conversation, line.arm) for line in lines if isinstance(line, AnswerLine)]
    assert len({conversation for conversation, _ in drawn}) == len({*drawn})
