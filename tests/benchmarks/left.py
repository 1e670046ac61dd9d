"""Curate a log and look for what redaction left; ``python -m tests.benchmarks.left LOG WORKLOAD``.

It reads ``curated.examples`` as a snapshot would. E-mails, cards and phones are looked for with
patterns cruder than the product's own, names that the fields ``first_name`` and ``last_name`` of
the same conversation hold wherever else they stand. (All capitals are an airport's, as MIA.)
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from components.curate import curate_workload
from components.curate.settings import Rules
from components.schema import Json
from components.store import warehouse
from tests.support import logs

CRUDE = {
    "e-mail": re.compile(r"[^\s@\"']+@[^\s@\"']+\.[a-z]+", re.IGNORECASE),
    "card": re.compile(r"(?<![0-9])(?:[0-9][ -]?){13,19}(?![0-9])"),
    "phone": re.compile(r"\+[0-9][0-9 ().-]{7,}|\(?[0-9]{3}\)?[ .-][0-9]{3}[ .-][0-9]{4}"),
}
RULES = Rules(split_by="conversation", max_prompt_chars=1_000_000)
NAMES = ("first_name", "last_name")


def texts(value: Json) -> Iterator[tuple[str, str]]:
    """Give each text with the field that it stands in, also in JSON that is text."""
    match value:
        case dict():
            for key, one in value.items():
                yield from ((field or key, text) for field, text in texts(one))
        case list():
            for one in value:
                yield from texts(one)
        case str() if value[:1] in ("{", "["):
            try:
                yield from texts(json.loads(value))
            except ValueError:
                yield "", value
        case str():
            yield "", value
        case _:
            return


def arguments(value: Json) -> Iterator[str]:
    """Give the arguments of all tool calls that are text."""
    match value:
        case {"arguments": str(text)}:
            yield text
        case dict():
            for one in value.values():
                yield from arguments(one)
        case list():
            for one in value:
                yield from arguments(one)
        case _:
            return


def report(log: Path, workload: str) -> int:
    """Curate the log; print what was kept, what was replaced and what is left; count the latter."""
    with tempfile.TemporaryDirectory() as folder:
        now = datetime.now(UTC)
        with warehouse.connect(Path(folder) / "store.duckdb") as con:
            logs.load(con, log, now=now)
            tally = curate_workload.curate(con, workload, RULES, now=now)
            examples = warehouse.rows(
                con,
                "select any_value(messages) as messages, any_value(answer) as answer,"
                " list(payload) as payloads from curated.examples"
                " join raw.interactions on interaction_id = any(interaction_ids)"
                " group by example_id",
            )
    left = Counter[str]()
    calls = 0
    for example in examples:
        said: Json = [json.loads(str(example["messages"])), json.loads(str(example["answer"]))]
        for text in arguments(said):
            calls += 1
            left["arguments that do not parse"] += not _parses(text)
        name = _names(example["payloads"])
        for field, text in texts(said):
            for kind, pattern in CRUDE.items():
                left[kind] += bool(pattern.search(text))
            left["name in its field"] += field in NAMES and not text.startswith("<NAME_")
            left["name elsewhere"] += sum(not one.isupper() for one in name.findall(text))
    found = {what: count for what, count in left.items() if count}
    sys.stdout.write(
        f"{tally.counts}\nredacted {tally.redactions}\n{len(examples)} examples, {calls} calls "
        f"whose arguments are text; left: {found or 'nothing'}\n"
    )
    return sum(left.values())


def _names(payloads: warehouse.Value) -> re.Pattern[str]:
    """Match the names that the fields of logged conversations hold, as words."""
    assert isinstance(payloads, list)
    read = [json.loads(str(payload)) for payload in payloads]
    held = {re.escape(text) for one in read for field, text in texts(one) if field in NAMES}
    return re.compile(rf"(?i)(?<![a-z])(?:{'|'.join(sorted(held)) or '(?!)'})(?![a-z])")


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("workload")
    given = parser.parse_args()
    sys.exit(min(report(given.log, given.workload), 1))
