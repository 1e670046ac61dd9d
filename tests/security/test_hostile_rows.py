"""No accepted row ends a curation, whatever is in it."""

import json
import re
import time
from pathlib import Path

import pytest

from components.curate import curate_workload, held_rows, row_judgement, worker_pool
from components.curate.curate_workload import CurationTally
from components.curate.redaction import identity_numbers
from components.curate.settings import Dispositions, Redaction, Rules
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import attacks, logs
from tests.support.curated_rows import row

IGNORING_LOOPS = Rules(rules=Dispositions.model_validate({"repetition": "ignore"}))
HALF = Rules(holdout_share=0.5, validation_share=0)


def curate(con: Connection, folder: Path, hostile: list[dict[str, Json]]) -> CurationTally:
    sound = [
        logs.interaction(f"{n} {n} {n}: how is it?", response_id=f"sound-{n}") for n in range(4)
    ]
    logs.load(con, logs.write(folder / "log.jsonl", [*sound, *hostile]), now=logs.NOW)
    return curate_workload.curate(con, "weather", HALF, now=logs.NOW)


def verdicts(con: Connection) -> list[tuple[str | None, str | None]]:
    return con.execute(
        "select objection, mark from curated.verdicts where objection is not null order by all"
    ).fetchall()


def test_a_role_that_is_no_text_costs_only_its_row(con: Connection, tmp_path: Path):
    request: Json = {"messages": [{"role": {}, "content": "hi"}]}
    tally = curate(con, tmp_path, [logs.interaction(request=request)])
    assert tally.counts == {"kept": 4, "malformed_messages": 1}


def test_half_a_character_in_an_earlier_call_costs_only_its_row(con: Connection, tmp_path: Path):
    earlier = logs.call("weather", '{"city": "\\ud800"}')
    messages: Json = [{"role": "user", "content": "How is Rome?"}, earlier]
    request: Json = {"messages": [*messages, {"role": "user", "content": "And then?"}]}
    tally = curate(con, tmp_path, [logs.interaction(request=request)])
    assert tally.counts == {"kept": 4, "unjudgeable": 1}
    mark = "UnencodableTextError in row_judgement._require_texts"
    assert tally.unjudgeable == {mark: 1}
    assert verdicts(con) == [("unjudgeable", mark)]


def test_a_verdict_names_the_error_and_the_rule_but_quotes_nothing():
    rules = Rules.model_construct(**{**Rules().__dict__, "rules": None})
    hostile = row(messages=[{"role": "user", "content": "my secret"}])
    judged = row_judgement.judge(hostile, rules)
    assert judged.objection == "unjudgeable"
    assert judged.mark == "AttributeError in rules.screen.screen"


def test_an_error_that_takes_very_much_is_asked_about(con: Connection, tmp_path: Path):
    earlier = logs.call("weather", '{"city": "\\ud800"}')
    hostile = [
        logs.interaction(
            request={
                "messages": [
                    {"role": "user", "content": f"How is {n}?"},
                    earlier,
                    {"role": "user", "content": f"{n}, and then?"},
                ]
            },
            response_id=f"hostile-{n}",
        )
        for n in range(10)
    ]
    curate(con, tmp_path, hostile)
    (loss,) = held_rows.open_losses(con, "weather")
    assert (loss.rule, loss.interactions) == ("unjudgeable", 10)


def test_what_takes_for_ever_is_interrupted():
    began = time.process_time()
    with pytest.raises(worker_pool.RowTimeoutError), worker_pool.limited(0.1):
        while True:
            pass
    assert time.process_time() - began < 5


def test_an_expression_that_takes_for_ever_is_interrupted():
    with pytest.raises(worker_pool.RowTimeoutError), worker_pool.limited(0.2):
        re.fullmatch("(a+)+", "a" * 60 + "!")


@pytest.mark.slow
def test_a_row_that_takes_for_ever_is_left_out_and_says_where():
    redaction = Redaction(allow_patterns=("(a+)+b",))
    slow = row(tools=[], message=logs.say(f"password: {'a' * 60}1!"))
    judged = row_judgement.judge(slow, Rules(redaction=redaction))
    assert judged.objection == "unjudgeable"
    assert judged.mark == "RowTimeoutError in settings.<genexpr>"


@pytest.mark.parametrize("name", attacks.ROWS)
def test_a_row_that_was_made_to_be_slow_is_judged_in_a_moment(name: str):
    began = time.process_time()
    judged = row_judgement.judge(attacks.ROWS[name](50_000), Rules(max_prompt_chars=10**9))
    assert "RowTimeoutError" not in (judged.mark or "")
    assert time.process_time() - began < 8


def test_a_megabyte_of_digits_with_blanks_takes_seconds():
    began = time.process_time()
    judged = row_judgement.judge(attacks.ROWS["digits with blanks"](1_000_000), IGNORING_LOOPS)
    assert (judged.objection, judged.mark) == (None, None)
    assert time.process_time() - began < 9  # minutes before


def test_half_a_megabyte_of_punctuation_takes_seconds():
    began = time.process_time()
    judged = row_judgement.judge(attacks.ROWS["punctuation"](500_000), IGNORING_LOOPS)
    assert judged.objection is None
    assert time.process_time() - began < 9  # minutes before


def test_more_text_than_is_redacted_is_left_out_and_says_so():
    judged = row_judgement.judge(row(tools=[], message=logs.say("word " * 220_000)), IGNORING_LOOPS)
    assert judged.objection == "redaction_failed"
    assert judged.mark is not None and judged.mark.endswith("at most 1,048,576 allowed")


def test_more_values_than_are_replaced_are_left_out_and_say_so():
    judged = row_judgement.judge(attacks.ROWS["many addresses"](20_000), IGNORING_LOOPS)
    found = (judged.objection, judged.mark)
    assert found == ("redaction_failed", "more than 1,000 distinct values")


def test_all_cards_of_a_long_run_of_digits_are_redacted():
    numbers = (f"411111111111{n:04}" for n in range(1000))
    cards = [one for one in numbers if identity_numbers.luhn(one)][:30]
    judged = row_judgement.judge(row(tools=[], message=logs.say(" ".join(cards))), IGNORING_LOOPS)
    assert judged.answer is not None
    said = json.loads(judged.answer)["text"].split()
    assert said == [f"<CARD_{n}>" for n in range(1, 31)]


def test_a_missing_package_is_no_fault_of_a_row():
    with pytest.raises(ImportError):
        worker_pool.reason(ImportError("no module named kingfisher_sdk"))
