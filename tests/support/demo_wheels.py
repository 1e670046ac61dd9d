"""A wheel laid out as bfcl-eval's is, with a few rows of each kind."""

import json
import zipfile
from pathlib import Path

from components.schema import Json
from flows.demo import wheels


def build(path: Path, rows: int = 12) -> Path:
    """Write the wheel; its names have dots and its types are BFCL's."""
    with zipfile.ZipFile(path, "w") as archive:
        for category in wheels.CALLS:
            made = [_row(category, number) for number in range(rows)]
            answers = [_answer(row) for row in made]
            _write(archive, f"BFCL_v4_{category}.json", made)
            _write(archive, f"possible_answer/BFCL_v4_{category}.json", answers)
        for category in wheels.NO_CALLS:
            made = [_row(category, number) for number in range(rows)]
            _write(archive, f"BFCL_v4_{category}.json", made)
    return path


def _row(category: str, number: int) -> dict[str, Json]:
    count = 2 if "multiple" in category or (category == "live_irrelevance" and number % 2) else 1
    return {
        "id": f"{category}_{number}",
        "question": [[{"role": "user", "content": f"Weather in city {number}?"}]],
        "function": [_function(f"{category}.f{number}_{place}") for place in range(count)],
    }


def _function(name: str) -> dict[str, Json]:
    parameters: Json = {
        "type": "dict",
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "limit": {"type": "float", "default": 1.0},
            "where": {"type": "tuple", "items": {"type": "any"}},
        },
    }
    return {"name": name, "description": f"Tells {name}.", "parameters": parameters}


def _answer(row: dict[str, Json]) -> dict[str, Json]:
    functions = row["function"]
    assert isinstance(functions, list)
    assert isinstance(functions[0], dict)
    values: Json = {
        "city": [f"city {row['id']}", "City"],
        "limit": ["", 1.0],
        "where": [[{"lat": [1.5], "lon": [""]}]],
    }
    return {"id": row["id"], "ground_truth": [{str(functions[0]["name"]): values}]}


def _write(archive: zipfile.ZipFile, name: str, rows: list[dict[str, Json]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    archive.writestr(f"bfcl_eval/data/{name}", text)
