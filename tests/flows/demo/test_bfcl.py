"""BFCL's rows become OpenAI requests with a reference that a model could have given."""

import json
import zipfile
from pathlib import Path

import pytest

from components.schema import Call, Json
from flows.demo import wheels
from flows.demo.wheels import BfclRequest
from tests.support import demo_wheels


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BfclRequest]:
    wheel = demo_wheels.build(tmp_path_factory.mktemp("wheel") / "bfcl.whl")
    return {request.id: request for request in wheels.read_requests(wheel)}


def test_the_reference_takes_the_first_acceptable_values_and_leaves_out_what_may_be_missing(
    requests: dict[str, BfclRequest],
):
    request = requests["simple_python_3"]
    arguments: dict[str, Json] = {"city": "city simple_python_3", "where": [{"lat": 1.5}]}
    assert request.call == Call("simple_python_f3_0", arguments)
    assert request.acceptable
    assert request.acceptable.arguments["limit"] == ["", 1.0]


def test_tools_are_json_schema_with_names_that_openai_allows(requests: dict[str, BfclRequest]):
    function = requests["simple_python_3"].tools[0]["function"]
    assert isinstance(function, dict)
    assert function["name"] == "simple_python_f3_0"
    assert function["parameters"] == {
        "type": "object",
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "limit": {"type": "number"},
            "where": {"type": "array", "items": {}},
        },
    }


def test_irrelevant_requests_want_no_call(requests: dict[str, BfclRequest]):
    request = requests["irrelevance_0"]
    assert (request.call, request.acceptable) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"question": [[], []]}, id="several-turns"),
        pytest.param({"question": [[{"role": "assistant", "content": "Hi"}]]}, id="assistant"),
        pytest.param({"function": []}, id="no-tools"),
    ],
)
def test_other_kinds_of_rows_are_left_out(tmp_path: Path, change: dict[str, Json]):
    row: dict[str, Json] = {
        "id": "irrelevance_0",
        "question": [[{"role": "user", "content": "Hi"}]],
        "function": [{"name": "f", "description": "", "parameters": {}}],
    }
    assert [request.id for request in read(tmp_path / "a.whl", row)] == ["irrelevance_0"]
    assert read(tmp_path / "b.whl", row | change) == []


def read(path: Path, row: dict[str, Json]) -> list[BfclRequest]:
    """Read a wheel that holds one row of ``irrelevance``."""
    demo_wheels.build(path, rows=0)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("bfcl_eval/data/BFCL_v4_irrelevance.json", json.dumps(row))
    return wheels.read_requests(path)
