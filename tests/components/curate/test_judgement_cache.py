"""Judgements are kept by content and rules: the same snapshot, and only what is new is judged."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from functools import cache
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.curate import judgement_cache, judgement_columns, kept_files, row_judgement
from components.curate.curate_workload import CurationTally
from components.curate.interaction import CandidateRow
from components.curate.parsed_rows import PREFIX
from components.curate.redaction.patterns import Kind
from components.curate.replay import ReplayError
from components.curate.settings import Redaction, Rules
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import attacks, curations, logs, tiny, warehouses
from tests.support.curated_rows import row

RULES = Rules(holdout_share=0.4, validation_share=0.1, split_by="conversation")
SECRET = "4111 1111 1111 1111"


def lines(numbers: Sequence[int]) -> list[dict[str, Json]]:
    """Write rows of all kinds: plain, with a card, with tools, flagged, left out."""
    return [line(n) for n in numbers]


def line(n: int) -> dict[str, Json]:
    question = f"Question {n} of Zoë: is it {n * n} or {n * n + 1}, and why not {n * 7}?"
    kinds: list[dict[str, Json]] = [
        {},
        {"question": f"{question} My card is {SECRET}, mail zoe.{n}@example.org."},
        {"message": logs.call("weather", {"city": f"Rome {n}"}), "tools": [logs.WEATHER]},
        {"message": logs.say("I'm sorry, but I can't help with that.")},
        {"message": logs.say("Traceback (most recent call last):\n  File 'a.py', line 1")},
        {"user_id": f"user-{n % 4}", "conversation_id": f"talk-{n // 3}"},
        {"request": {"messages": [{"role": {}, "content": "hi"}]}},
    ]
    changes = dict(kinds[n % len(kinds)])
    asked = str(changes.pop("question", question))
    message = changes.pop("message", logs.say(f"It is {n}, as one sees at once from the table."))
    return logs.interaction(asked, response_id=f"r{n}", message=message, **changes)


def load(con: Connection, folder: Path, numbers: Sequence[int]) -> None:
    logs.load(con, logs.write(folder / f"{min(numbers)}.jsonl", lines(numbers)), now=logs.NOW)


def curate(con: Connection, folder: Path | None, rules: Rules = RULES) -> CurationTally:
    return curations.curate(con, "weather", rules, now=logs.NOW, judgements_folder=folder)


def frozen(con: Connection, to: Path, base: Path | None = None) -> dict[str, bytes]:
    snapshot = curations.freeze(con, to, "weather", rules=RULES, now=logs.NOW, base=base)
    files = {path.name: path.read_bytes() for path in snapshot.path.iterdir()}
    return {"key": snapshot.key.encode(), **files}


Tables = dict[str, list[warehouse.Row]]


def curated(con: Connection) -> Tables:
    tables = ("examples", "verdicts", "standings", "redactions", "fates", "labels")
    return {name: warehouse.rows(con, f"from curated.{name} order by all") for name in tables}


def judged_as_whole(con: Connection, folder: Path, rules: Rules = RULES) -> tuple[int, int]:
    """Curate with kept judgements, and without: both are equal.

    Return how many rows were judged, and how many only screened by changed rules.
    """
    tally = curate(con, folder, rules)
    with_kept = curated(con)
    whole = curate(con, None, rules)
    assert with_kept == curated(con)
    assert replace(tally, judged=0, screened=0) == replace(whole, judged=0)
    assert whole.judged == whole.interactions
    return tally.judged, tally.screened


Curated = Callable[[int], Connection]
"""Opens a warehouse of that many rows that was curated, with the judgements kept in ``kept``."""

Once = Callable[[int], Path]


@pytest.fixture(scope="module")
def curated_once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Load and curate that many rows; return the folder, which tests only copy."""

    @cache
    def build(rows: int) -> Path:
        folder = tmp_path_factory.mktemp("curated")
        with warehouses.connect(folder / "warehouse.duckdb") as con:
            load(con, folder, range(rows))
            assert curate(con, folder / "kept").judged == rows
        return folder

    return build


@pytest.fixture
def curated_rows(curated_once: Once, tmp_path: Path) -> Iterator[Curated]:
    """Give each test a copy of its own; a lake is filled anew."""
    with ExitStack() as stack:

        def copy(rows: int) -> Connection:
            if not warehouses.ON_LAKE:
                shutil.copytree(curated_once(rows), tmp_path, dirs_exist_ok=True)
            con = stack.enter_context(warehouses.connect(tmp_path / "warehouse.duckdb"))
            if warehouses.ON_LAKE:
                load(con, tmp_path, range(rows))
                curate(con, tmp_path / "kept")
            return con

        yield copy


def test_a_night_judges_only_what_is_new_and_freezes_the_same_bytes(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, range(28))
    assert curate(con, tmp_path / "kept").judged == 28
    frozen(con, tmp_path / "first")
    load(con, tmp_path, range(28, 35))
    assert judged_as_whole(con, tmp_path / "kept") == (7, 0)
    whole = frozen(con, tmp_path / "whole")
    assert curate(con, tmp_path / "kept").judged == 0
    assert frozen(con, tmp_path / "warm") == whole


@pytest.mark.parametrize(
    ("change", "judged", "screened"),
    [
        pytest.param({"rules": {"refusal": "drop"}}, 0, 21, id="disposition"),
        pytest.param({"redaction": {"off": ["card"]}}, 21, 0, id="redaction"),
        pytest.param({"languages": ["de"]}, 0, 21, id="languages", marks=pytest.mark.slow),
        pytest.param({"max_prompt_chars": 100}, 0, 21, id="length", marks=pytest.mark.slow),
        pytest.param({"near": {"jaccard": 0.3}}, 0, 0, id="near-duplicates"),
        pytest.param({"holdout_share": 0.6}, 0, 0, id="shares", marks=pytest.mark.slow),
        pytest.param(
            {"redaction": {"seed": 7}}, 0, 0, id="seed-of-surrogates", marks=pytest.mark.slow
        ),
        pytest.param(
            {"redaction": {"replace": "placeholders"}},
            0,
            0,
            id="placeholders",
            marks=pytest.mark.slow,
        ),
        pytest.param({"balance": {"max_rows": 3}}, 0, 0, id="budget", marks=pytest.mark.slow),
    ],
)
def test_a_changed_setting_judges_anew_what_it_concerns(
    curated_rows: Curated, tmp_path: Path, change: dict[str, Json], judged: int, screened: int
):
    con = curated_rows(21)
    rules = Rules.model_validate(RULES.model_dump(mode="json") | change)
    assert judged_as_whole(con, tmp_path / "kept", rules) == (judged, screened)


@pytest.mark.slow
def test_another_tokenizer_judges_nothing_anew(curated_rows: Curated, tmp_path: Path):
    con = curated_rows(14)  # all of them judged
    tiny.tokenizer(["Question"]).save_pretrained(tmp_path / "base")
    whole = frozen(con, tmp_path / "whole", tmp_path / "base")
    assert curate(con, tmp_path / "kept").judged == 0
    assert frozen(con, tmp_path / "warm", tmp_path / "base") == whole


def test_another_version_of_a_library_judges_all_rows_anew(
    curated_rows: Curated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    con = curated_rows(14)
    before = curated(con)
    installed = tmp_path / "site" / "google_re2-9999.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: google-re2\nVersion: 9999\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(row_judgement, "read_version", metadata.version)  # as a new process reads
    assert curate(con, tmp_path / "kept").judged == 14
    assert curated(con) == before


def test_a_late_correction_judges_its_row_anew_and_a_late_vote_none(
    curated_rows: Curated, tmp_path: Path
):
    con = curated_rows(14)
    votes = [logs.feedback(response_id="r0"), logs.feedback("thumb", "up", response_id="r7")]
    logs.load_feedback(con, logs.write(tmp_path / "votes.jsonl", votes), now=logs.NOW)
    assert curate(con, tmp_path / "kept").judged == 0
    correction = logs.feedback("correction", logs.say("Rather 49, said Zoë."), response_id="r7")
    logs.load_feedback(con, logs.write(tmp_path / "given.jsonl", [correction]), now=logs.NOW)
    assert judged_as_whole(con, tmp_path / "kept") == (1, 0)


def test_a_rewritten_record_is_judged_anew(curated_rows: Curated, tmp_path: Path):
    con = curated_rows(14)
    changed = json.dumps(line(0) | {"response": line(9)["response"]})
    sql = "update raw.interactions set record = $record where payload::varchar like '%\"r0\"%'"
    con.execute(sql, {"record": changed})
    assert judged_as_whole(con, tmp_path / "kept") == (1, 0)


OTHERS = {
    "VARCHAR": "'other'",
    "VARCHAR[]": "['a', 'b']",
    "BOOLEAN": "not is_corrected",
    "TIMESTAMP WITH TIME ZONE": "logged_at + interval 1 microsecond",
}
"""Another value of a column, by its type."""

DIGEST = "_digest"


@warehouses.only_a_file("the view of candidates, which is in the curation's copy")
def test_whatever_a_judgement_reads_is_in_the_digest_of_its_row(con: Connection, tmp_path: Path):
    load(con, tmp_path, [5])
    correction = logs.feedback("correction", logs.say("Rather 49, said Zoë."), response_id="r5")
    logs.load_feedback(con, logs.write(tmp_path / "given.jsonl", [correction]), now=logs.NOW)
    curate(con, None)
    con.execute("create temporary table changed as from candidates")
    con.execute("create or replace temporary view candidates as from changed")
    columns = con.execute("select column_name, column_type from (describe changed)").fetchall()
    digests_of = {name.removesuffix(DIGEST) for name, _ in columns if name.endswith(DIGEST)}
    columns = [(name, kind) for name, kind in columns if not name.endswith(DIGEST)]
    assert {name for name, _ in columns} == {field.name for field in fields(CandidateRow)}
    for name in digests_of:
        differ = f"select count(*) from changed where {name}{DIGEST} is distinct from md5({name})"
        assert con.execute(differ).fetchall() == [(0,)]

    def digest() -> str:
        ((_, _, content),) = con.execute(warehouse.model_select("staging/contents")).fetchall()
        return content

    digests = {digest()}
    others = [(name, OTHERS[kind]) for name, kind in columns if name != "interaction_id"]
    for name, value in [*others, ("user_id", "null"), ("conversation_id", "user_id")]:
        con.execute("begin")
        con.execute(f"update changed set {name} = {value}")
        if name in digests_of:
            con.execute(f"update changed set {name}{DIGEST} = md5({name})")
        assert digest() not in digests, name
        digests.add(digest())
        con.execute("rollback")


def parts(folder: Path, *, are_parsed: bool = False) -> list[Path]:
    """Return the files of judgements, or of parsed rows."""
    return [
        path
        for path in sorted(folder.glob("*/*"))
        if path.parent.name.startswith(PREFIX) == are_parsed
    ]


@pytest.mark.parametrize(
    ("damage", "are_parsed"),
    [("changed", False), ("unfinished", False), ("cut", True), ("emptied", True)],
)
def test_a_damaged_file_is_never_believed(
    curated_rows: Curated, tmp_path: Path, damage: str, are_parsed: bool
):
    con = curated_rows(14)
    before = curated(con)
    (part,) = parts(tmp_path / "kept", are_parsed=are_parsed)
    content = part.read_bytes()
    middle = len(content) // 2
    changed = {
        "changed": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "cut": content[:middle],
        "emptied": b"",
        "unfinished": content,
    }
    part.write_bytes(changed[damage])
    if damage == "unfinished":
        part.rename(part.with_suffix(kept_files.PARTIAL))
    assert curate(con, tmp_path / "kept").judged == (0 if are_parsed else 14)
    assert curated(con) == before
    names = [path.name for path in parts(tmp_path / "kept", are_parsed=are_parsed)]
    assert names == [part.name]


def test_a_row_that_left_the_log_is_compared_no_more(curated_rows: Curated, tmp_path: Path):
    con = curated_rows(14)
    con.execute("delete from raw.interactions where payload::varchar like '%\"r1\"%'")
    assert judged_as_whole(con, tmp_path / "kept") == (0, 0)


def test_a_row_that_could_not_be_judged_is_tried_again(con: Connection, tmp_path: Path):
    earlier = logs.call("weather", '{"city": "\\ud800"}')
    messages: Json = [{"role": "user", "content": "How is Rome?"}, earlier]
    request: Json = {"messages": [*messages, {"role": "user", "content": "And then?"}]}
    logs.load(
        con,
        logs.write(tmp_path / "log.jsonl", [*lines(range(7)), logs.interaction(request=request)]),
        now=logs.NOW,
    )
    assert curate(con, tmp_path / "kept").unjudgeable
    tally = curate(con, tmp_path / "kept")
    assert (tally.judged, len(tally.unjudgeable)) == (1, 1)


KILLED = """
import sys
from pathlib import Path
from components.curate.redaction.patterns import Kind
from components.curate.settings import Redaction, Rules
from tests.support import curations, logs, warehouses
home, rules = Path(sys.argv[1]), Rules.model_validate_json(sys.argv[2])
with warehouses.connect(home / "warehouse.duckdb") as con:
    curations.curate(
        con, "weather", rules, now=logs.NOW, judgements_folder=home / "kept"
    )
"""


def test_a_curation_that_fails_keeps_what_it_judged(con: Connection, tmp_path: Path):
    load(con, tmp_path, range(14))
    replay: Json = {"sources": [str(tmp_path / "missing.jsonl")], "share": 0.1}
    changes: dict[str, Json] = {"balance": {"replay": replay}}  # read after all rows are judged
    rules = Rules.model_validate({**RULES.model_dump(mode="json"), **changes})
    with pytest.raises(ReplayError):
        curate(con, tmp_path / "kept", rules)
    assert con.execute("select count(*) from curated.verdicts").fetchall() == [(0,)]
    assert judged_as_whole(con, tmp_path / "kept") == (0, 0)


def opened_by_reader(pipe: Path, process: subprocess.Popen[bytes]) -> int:
    """Open the pipe for writing once the process reads from it."""
    while process.poll() is None:
        with suppress(OSError):  # nobody reads from it yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.05)
    raise AssertionError(f"curation ended with {process.returncode}")


@pytest.mark.slow
def test_a_killed_curation_keeps_what_it_judged(tmp_path: Path):
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        load(con, tmp_path, range(14))
    pipe = tmp_path / "replayed.jsonl"
    os.mkfifo(pipe)  # curation stands still when it comes to it, after all rows are judged
    balance: Json = {"replay": {"sources": [str(pipe)], "share": 0.1}}
    rules = Rules.model_validate({**RULES.model_dump(mode="json"), "balance": balance})
    command = [sys.executable, "-c", KILLED, str(tmp_path), rules.model_dump_json()]
    process = subprocess.Popen(command)
    writer = opened_by_reader(pipe, process)
    process.kill()
    process.wait()
    os.close(writer)
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        assert con.execute("select count(*) from curated.verdicts").fetchall() == [(0,)]
        assert judged_as_whole(con, tmp_path / "kept") == (0, 0)


def test_judgements_of_missing_rows_and_by_missing_corrections_are_forgotten(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, range(14))
    words = [logs.feedback("correction", logs.say("Rather not."), response_id="r7")]
    logs.load_feedback(con, logs.write(tmp_path / "given.jsonl", words), now=logs.NOW)
    curate(con, tmp_path / "kept")
    con.execute("delete from raw.interactions where payload::varchar like '%\"r1\"%'")
    con.execute("delete from raw.feedback")
    assert judgement_cache.forget_missing(con, tmp_path / "kept") == 3
    kept = [*parts(tmp_path / "kept"), *parts(tmp_path / "kept", are_parsed=True)]
    text = str([pq.read_table(part).to_pylist() for part in kept])
    assert "Rather not." not in text
    assert "zoe.1@example.org" not in text
    assert "zoe.8@example.org" in text
    assert judgement_cache.forget_missing(con, tmp_path / "kept") == 0
    assert judged_as_whole(con, tmp_path / "kept") == (1, 0)


def test_the_texts_that_a_killed_curation_left_go_with_the_next_one_or_an_erasure(
    con: Connection, tmp_path: Path
):
    load(con, tmp_path, range(7))
    curate(con, tmp_path / "kept")
    left = tmp_path / "kept" / "tmp1" / "judgements.parquet"
    for clean in (curate, judgement_cache.forget_missing):
        left.parent.mkdir(exist_ok=True)
        shutil.copy(parts(tmp_path / "kept")[0], left)
        clean(con, tmp_path / "kept")
        assert not left.exists()
    assert curate(con, tmp_path / "kept").judged == 0


@pytest.mark.slow
def test_small_files_of_many_nights_become_one(con: Connection, tmp_path: Path):
    for night in range(3):
        load(con, tmp_path, range(7 * night, 7 * night + 7))
        assert curate(con, tmp_path / "kept").judged == 7
    assert len(parts(tmp_path / "kept")) == 1
    assert len(parts(tmp_path / "kept", are_parsed=True)) == 1
    assert judged_as_whole(con, tmp_path / "kept") == (0, 0)


def test_judgements_by_other_rules_are_deleted(con: Connection, tmp_path: Path):
    load(con, tmp_path, range(7))
    curate(con, tmp_path / "kept")
    rules = RULES.model_copy(update={"redaction": Redaction(off=(Kind.CARD,))})
    assert curate(con, tmp_path / "kept", rules).judged == 7
    assert len({part.parent for part in parts(tmp_path / "kept")}) == 1


@pytest.mark.slow
def test_rules_that_change_back_and_forth_leave_one_file(con: Connection, tmp_path: Path):
    load(con, tmp_path, range(14))
    strict = RULES.model_copy(update={"max_prompt_chars": 100})
    for rules in (RULES, strict, RULES):
        curate(con, tmp_path / "kept", rules)
    assert judged_as_whole(con, tmp_path / "kept") == (0, 0)
    (part,) = parts(tmp_path / "kept")
    assert pq.read_table(part).num_rows == 14


@pytest.mark.parametrize("name", sorted(attacks.ROWS))
def test_hostile_rows_come_back_equal(name: str):
    judged = row_judgement.judge(attacks.ROWS[name](1_000), RULES)
    assert [*judgement_columns.judgements_of(judgement_columns.table_of([judged]))] == [judged]


def test_plain_and_left_out_rows_come_back_equal():
    # Numbers of placeholders follow those of the text, of whatever length they are.
    long = f"Not <EMAIL_{'9' * 30}>, but ann@acme.org."
    candidates = [
        row(message=logs.say(long)),
        row(messages=[{"role": "user", "content": long}]),
        row(),
        row(message=logs.say(f"Your card {SECRET} is known.")),
        row(message=logs.say("")),
        row(message=logs.say("Sorry, I can't help with that."), tools=[]),
        row(message=logs.say("Rather <CARD_1>."), is_corrected=True),
    ]
    judged = [row_judgement.judge(candidate, RULES) for candidate in candidates]
    assert [*judgement_columns.judgements_of(judgement_columns.table_of(judged))] == judged
