"""The table of routes: its file, its flip, and waiting for the requests of an old version."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.serve import routes
from components.serve.routes import Current, Route, Routes, RoutesFileError
from tests.support import gateways

SEVEN = gateways.served(Path("/bases/small"), replicas=("vllm-1", "vllm-2"))
EIGHT = replace(SEVEN, version="8", model="support.v8-cdcdcdcdcdcd")


def test_routes_are_read_as_they_were_written(tmp_path: Path):
    table = Routes({"support": Route(4, EIGHT, SEVEN), "other": Route(1, SEVEN)})
    table.write(tmp_path / "serve" / "routes.json")
    assert routes.read(tmp_path / "serve" / "routes.json") == table
    assert [path.name for path in (tmp_path / "serve").iterdir()] == ["routes.json"]


def test_a_missing_file_has_no_routes(tmp_path: Path):
    assert len(routes.read(tmp_path / "routes.json")) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("{", "not JSON", id="truncated"),
        pytest.param("[]", "an object with", id="array"),
        pytest.param('{"version": 2, "routes": {}}', "its version is 2", id="newer"),
        pytest.param(
            '{"version": 1, "routes": {"a": {"epoch": 1}}}', "incomplete", id="no-champion"
        ),
        pytest.param(
            json.dumps({"version": 1, "routes": {"a": {"epoch": 1, "champion": {}}}}),
            "incomplete",
            id="empty-champion",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_its_reason(tmp_path: Path, content: str, reason: str):
    path = tmp_path / "routes.json"
    path.write_text(content)
    with pytest.raises(RoutesFileError, match=reason):
        routes.read(path)


def test_keys_of_a_later_file_are_ignored(tmp_path: Path):
    path = tmp_path / "routes.json"
    Routes({"support": Route(4, SEVEN)}).write(path)
    content = json.loads(path.read_text())
    content["routes"]["support"]["canary"] = None
    content["routes"]["support"]["champion"]["later"] = 1
    path.write_text(json.dumps(content))
    assert routes.read(path)["support"].champion == SEVEN


def test_a_swap_waits_for_the_requests_of_the_old_version_only():
    async def swap() -> list[bool]:
        current = Current(Routes({"support": Route(1, SEVEN), "other": Route(1, SEVEN)}))
        old = current.enter("support")
        current.enter("other")
        assert old is not None
        current.routes = current.routes.with_route("support", Route(2, EIGHT, SEVEN))
        new = current.enter("support")
        assert new is not None
        assert (new.epoch, new.champion.version) == (2, "8")
        early = await current.drained("support", 1, 0.01)
        asyncio.get_running_loop().call_later(0.02, current.leave, "support", old.epoch)
        late = await current.drained("support", 1, 5)
        return [early, late, await current.drained("support", 2, 0.01)]

    assert asyncio.run(swap()) == [False, True, False]


def test_a_workload_without_a_route_is_not_counted():
    current = Current()
    assert current.enter("support") is None
    assert current.open_requests("support", 99) == 0
