import json
import random
import re
import time
from functools import cache

import pytest

from components.collect.source import ParsedRecord, RejectedRecord, Source, SourceRow
from components.collect.sources import otlp_encoding
from components.schema import Json
from tests.support import mutation, telemetry
from tests.support.samples import SAMPLES, SOURCES, of_its_own_span
from tests.support.source_reading import DEFAULTS, read

MUTANTS = 3_000
SLOWEST_SECONDS = 2.0
"""Maximum time for one damaged record; it takes less than a thousandth of that."""


@cache
def rows() -> list[SourceRow]:
    values = mutation.mutants([value for _, value in SAMPLES], MUTANTS, seed=3)
    return [SourceRow(n, json.dumps(value), value) for n, value in enumerate(values, start=1)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.NAME)
def test_every_damaged_record_is_read_or_refused_and_never_raises(source: Source):
    accepted = refused = 0
    for row in rows():
        began = time.process_time()
        source.claims(row.value)
        outcomes = list(source.read([row], DEFAULTS))
        assert time.process_time() - began < SLOWEST_SECONDS, row.text
        assert outcomes, row.text
        for outcome in outcomes:
            assert outcome.row.place == row.place
            assert isinstance(json.loads(outcome.row.text), dict)
            if isinstance(outcome, ParsedRecord):
                json.dumps(outcome.record)
                accepted += 1
            else:
                assert outcome.reason
                refused += 1
    assert accepted > MUTANTS / len(SAMPLES) / 4  # of those of its own
    assert refused > MUTANTS / 2


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.NAME)
def test_damaged_records_leave_the_good_ones_of_their_file_alone(source: Source):
    good = [of_its_own_span(value, n) for n, value in enumerate(_good(source))]
    expected = [
        outcome.record for outcome in read(source, *good) if isinstance(outcome, ParsedRecord)
    ]
    strangers = [row for row in rows() if not source.claims(row.value)][:2000]
    own = [
        SourceRow(MUTANTS + n, json.dumps(value), value) for n, value in enumerate(good, start=1)
    ]
    outcomes = list(source.read([*strangers, *own], DEFAULTS))
    kept = [
        outcome.record
        for outcome in outcomes
        if isinstance(outcome, ParsedRecord) and outcome.row.place > MUTANTS
    ]
    assert kept == expected
    assert {outcome.row.place for outcome in outcomes} == {row.place for row in [*strangers, *own]}


@pytest.mark.parametrize(("source", "value"), SAMPLES, ids=lambda one: getattr(one, "NAME", ""))
def test_nesting_that_only_just_parses_exhausts_no_stack(source: Source, value: dict[str, Json]):
    text, deep = json.dumps(value), "[" * 900 + "]" * 900
    for match in re.finditer(r'(?<=: )"[^"\\]*"', text):
        nested = text[: match.start()] + deep + text[match.end() :]
        (refused,) = source.read([SourceRow(1, nested, json.loads(nested))], DEFAULTS)
        assert isinstance(refused, RejectedRecord)
        assert refused.reason == "the record is nested deeper than 200 levels"
    within = json.dumps(value | {"input": deep, "output": deep, "value": deep})
    for outcome in source.read([SourceRow(1, within, json.loads(within))], DEFAULTS):
        json.dumps(outcome.record if isinstance(outcome, ParsedRecord) else outcome.reason)


def _good(source: Source) -> list[dict[str, Json]]:
    return [value for its, value in SAMPLES if its is source]


@pytest.mark.parametrize(("source", "value"), SAMPLES, ids=lambda other: getattr(other, "NAME", ""))
def test_a_good_record_is_claimed_by_its_source_and_by_no_other(
    source: Source, value: dict[str, Json]
):
    assert [other.NAME for other in SOURCES if other.claims(value)] == [source.NAME]
    assert not [other for other in read(source, value) if isinstance(other, RejectedRecord)]


def test_damaged_protobuf_is_read_or_raises_value_error():
    spans, records = telemetry.logs_of_a_span(
        ("gen_ai.user.message", {"content": "Hello?"}),
        ("gen_ai.choice", {"index": 0, "message": {"content": "Hi."}}),
    )
    chance = random.Random(3)
    read_whole = named = 0
    for n in range(MUTANTS):
        try:
            list(otlp_encoding.decode_file(mutation.damaged(records if n % 2 else spans, chance)))
            read_whole += 1
        except ValueError as error:
            assert "reading OTLP protobuf" in str(error)
            named += 1
    assert read_whole + named == MUTANTS
    assert min(read_whole, named) > MUTANTS / 100
