"""Count what each rule finds in a folder's logs, and what judging costs a row.

    .venv/bin/python -m tests.benchmarks.rules FOLDER [--show RULE]

FOLDER holds ``telemetry*.jsonl.gz``, five-key logs of any workloads. Every rule flags, so that each
is asked about every row, and languages are compared with the question's; ``--show`` prints what a
rule found, to look at. Each rule's cost is that of asking it alone about rows that are read and
rendered; the whole judgement is timed without redaction, with the rules as they are by default.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from components.curate import interaction
from components.curate.interaction import Candidate, CandidateRow, MalformedError
from components.curate.rules import language, screen
from components.curate.rules.screen import Screened
from components.curate.settings import FLAG, Dispositions
from components.schema import Json
from tests.benchmarks import traffic
from tests.support import logs

LONGEST = 16_000
FLAGGED = Dispositions(**dict.fromkeys(Dispositions.model_fields, FLAG))


def row(number: int, line: dict[str, Json]) -> CandidateRow:
    """Read a log line as ``staging.candidates`` does, feedback apart."""
    match line:
        case {"request": dict(request), "response": {"choices": [dict(choice), *_]}}:
            message, reason = choice.get("message"), choice.get("finish_reason")
        case _:
            raise ValueError(f"line {number} is no five-key line")
    return CandidateRow(
        interaction_id=f"{number:08}",
        workload_id=str(line["workload_id"]),
        example_id=f"{number:08}",
        logged_at=logs.NOW,
        conversation_id=None,
        user_id=None,
        messages=json.dumps(request.get("messages")),
        tools=json.dumps(request.get("tools") or []),
        message=json.dumps(message),
        finish_reason=reason if isinstance(reason, str) else None,
        is_corrected=False,
        acceptable=None,
    )


def judge(one: CandidateRow, dispositions: Dispositions) -> Screened:
    """Read a row and ask the rules about it."""
    try:
        read = interaction.read(one)
    except MalformedError as error:
        return Screened(str(error))
    languages = "as_asked" if dispositions is FLAGGED else "any"
    return screen.screen(read, dispositions, max_prompt_chars=LONGEST, languages=languages)


def count(rows: list[CandidateRow]) -> dict[str, Counter[str]]:
    """Count the rows of each workload that each rule finds something in."""
    found: dict[str, Counter[str]] = {}
    for one in rows:
        screened = judge(one, FLAGGED)
        counts = found.setdefault(one.workload_id, Counter())
        counts["rows"] += 1
        counts.update([screened.objection] if screened.objection else [])
        counts.update({flag.rule for flag in screened.flags})
    return found


def microseconds(work: Callable[[], object], rows: int) -> float:
    """Time a piece of work, the best of three, in microseconds of CPU a row."""
    took: list[float] = []
    for _ in range(3):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return min(took) / rows * 1e6


def costs(rows: list[CandidateRow]) -> dict[str, float]:
    """Time each rule alone, and the whole judgement, in microseconds of CPU a row."""
    fit = [one for one in rows if judge(one, FLAGGED).objection is None]
    read = [interaction.read(one) for one in fit]
    for one in read:
        assert one.answer_json and one.rendered is not None
    asked: dict[str, Callable[[Candidate], object]] = {
        rule.__name__: rule for rule in (*screen.UNFIT, *screen.FAULTS)
    }
    asked["wrong_language"] = lambda one: language.wrong_language(one, "as_asked")
    alone = {
        name: microseconds(lambda rule=rule: [rule(one) for one in read], len(read))
        for name, rule in asked.items()
    }
    whole = microseconds(lambda: [judge(one, Dispositions()) for one in rows], len(rows))
    return alone | {"read, render and judge": whole}


def show(rows: list[CandidateRow], rule: str) -> None:
    """Print what a rule found, with the last message and the answer."""
    for one in rows:
        for flag in judge(one, FLAGGED).flags:
            if flag.rule == rule:
                last = json.loads(one.messages)[-1]
                sys.stdout.write(f"{one.workload_id}  {flag.mark}\n")
                sys.stdout.write(f"    {str(last)[:300]}\n    {str(one.message)[:300]}\n")


def report(folder: Path | None, rule: str | None) -> None:
    """Print counts by workload and rule, and what each costs."""
    rows = [row(number, line) for number, line in enumerate(traffic.seeds(folder))]
    if rule is not None:
        show(rows, rule)
        return
    for workload_id, counts in sorted(count(rows).items()):
        named = ", ".join(f"{name} {counts[name]}" for name in sorted(counts) if name != "rows")
        sys.stdout.write(f"{workload_id:24} {counts['rows']:6} rows: {named or 'nothing found'}\n")
    for name, cost in costs(rows).items():
        sys.stdout.write(f"{name:24} {cost:7.1f} us of CPU a row\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="the folder of the logs")
    parser.add_argument("--show", metavar="RULE", help="print what one rule found")
    given = parser.parse_args()
    report(given.folder, given.show)
