"""Curation works on a copy: the warehouse is free while it computes, and nothing erased returns."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.curate.settings import Balance, Overlap, Replay, Rules
from components.dataset import freeze_snapshot
from components.dataset.freeze_snapshot import EmptySideError
from components.dataset.snapshot_figures import Snapshot
from components.evaluate import holdout_task
from components.evaluate.settings import EvaluationSettings
from components.gate.policy import Guard, Policy
from components.schema import Answer, Call, Json
from components.scorecard import HOLDOUT
from components.store import manifest, working_copy
from components.store.working_copy import StaleCopyError
from flows import snapshots, workload_file
from flows.machines import erased_copies
from flows.settings import Settings
from flows.snapshots import FrozenWorkload
from flows.workload_file import Workload
from tests.support import logs, warehouses, workload_text
from tests.support.warehouse_holder import held_elsewhere

OPEN_IT = """
import sys
from pathlib import Path
from components.store import warehouse
with warehouse.connect(Path(sys.argv[1]), 2.0) as con:
    con.execute("create table raw.was_here as select 1 as one")
"""


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Make a set to replay from that curation, when it comes to it, waits for."""
    path = tmp_path / "replayed.jsonl"
    os.mkfifo(path)
    return path


def workload(home: Settings, pipe: Path | None = None) -> Workload:
    (home.home / "base").mkdir(exist_ok=True)
    (home.home / "base/config.json").write_text("{}")
    logs.write(home.home / "any.jsonl", [])
    sources = {"logs": ["any.jsonl"]}
    read = workload_file.read_workload(
        workload_text.write(home.home, workload="weather", sources=sources)
    )
    replay = pipe and Replay(sources=[pipe], share=0.1)
    rules = Rules(holdout_share=0.5, validation_share=0, balance=Balance(replay=replay))
    return read.model_copy(update={"curate": rules})  # a pipe is no file to the reader


def collect(home: Settings, folder: Path, numbers: Sequence[int]) -> None:
    lines = [
        logs.interaction(f"{n} {n} {n}: how is it there?", response_id=f"r{n}") for n in numbers
    ]
    with warehouses.connect(home.warehouse) as con:
        logs.load(con, logs.write(folder / f"{min(numbers)}.jsonl", lines), now=logs.NOW)


def freeze(home: Settings, pipe: Path, meanwhile: Sequence[Callable[[], None]]) -> FrozenWorkload:
    """Freeze the workload; each attempt stands still until its part of ``meanwhile`` is done."""

    def write() -> None:
        for do in meanwhile:
            with pipe.open("w"):  # curation is in the midst of it now
                pipe.unlink()
                os.mkfifo(pipe)  # for the next attempt: this one's would be open for a while
                do()

    other = ThreadPoolExecutor(1)
    written = other.submit(write)
    try:
        curated = snapshots.freeze_workload(workload(home, pipe), home, now=logs.NOW)
    except BaseException:
        os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))  # lets the other thread end
        raise
    written.result(10)
    other.shutdown()
    return curated


def requests(home: Settings, curated: FrozenWorkload) -> set[str]:
    assert curated.snapshot is not None
    sides = ("train", "holdout")
    tables = [pq.read_table(curated.snapshot.path / f"{side}.parquet") for side in sides]
    return {
        message["content"]
        for table in tables
        for row in table["prompt"].to_pylist()
        for message in row
    }


KILLED = """
import os, signal, sys
from pathlib import Path
from flows import snapshots, workload_file
from flows.settings import Settings
from tests.support import logs

def kill(event, arguments, finished=[]):
    if finished:  # the first thing after the rename
        finished.clear()
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "os.rename" and str(arguments[1]).endswith("manifest.json"):
        finished.append(True)

home = Settings(Path(sys.argv[1]), 4200, 5000)
workload = workload_file.read_workload(Path(sys.argv[2]))
sys.addaudithook(kill)
snapshots.freeze_workload(workload, home, now=logs.NOW)
"""


@pytest.mark.slow
def test_a_kill_after_a_snapshot_is_finished_leaves_its_sides_settled(
    home: Settings, tmp_path: Path
):
    """Else `flywheel train` could learn from rows that the next snapshot holds out."""
    collect(home, tmp_path, range(8))
    workload(home)  # makes its base
    rules = {"holdout_share": 0.5, "validation_share": 0}
    file = workload_text.write(
        home.home, workload="weather", sources={"logs": ["any.jsonl"]}, curate=rules
    )
    command = [sys.executable, "-c", KILLED, str(home.home), str(file)]
    assert subprocess.run(command, check=False).returncode == -9
    assert freeze_snapshot.newest_snapshot(home.snapshots, "weather")
    with warehouses.connect(home.warehouse) as con:
        settled = con.execute("select distinct side from curated.sides order by side").fetchall()
        assert settled == [("holdout",), ("train",)]
        assert con.execute("from raw.manifests").fetchall() == []


@pytest.mark.slow
def test_others_have_the_warehouse_while_curation_computes(
    home: Settings, pipe: Path, tmp_path: Path
):
    collect(home, tmp_path, range(8))
    command = [sys.executable, "-c", OPEN_IT, str(home.warehouse)]
    curated = freeze(home, pipe, [lambda: subprocess.run(command, check=True) and None])
    assert len(requests(home, curated)) == 8
    with warehouses.connect(home.warehouse) as con:
        assert con.execute("from raw.was_here").fetchall() == [(1,)]
        assert con.execute("select count(*) from curated.verdicts").fetchall() == [(8,)]
        assert con.execute("select kind from raw.manifests").fetchall() == [("snapshot",)]
        assert con.execute("select count(*) from curated.sides").fetchall() != [(0,)]


def test_what_is_erased_meanwhile_does_not_come_back(home: Settings, pipe: Path, tmp_path: Path):
    collect(home, tmp_path, range(8))

    def erase() -> None:
        with warehouses.connect(home.warehouse) as con:
            con.execute("delete from raw.interactions where payload::varchar like '%3 3 3%'")

    curated = freeze(home, pipe, [erase, lambda: None])
    assert "3 3 3: how is it there?" not in requests(home, curated)
    with warehouses.connect(home.warehouse) as con:
        assert con.execute("select count(*) from curated.verdicts").fetchall() == [(7,)]
    assert len(list((home.snapshots / "weather").iterdir())) == 1


def test_what_is_erased_while_a_snapshot_is_written_takes_it_along(home: Settings, tmp_path: Path):
    collect(home, tmp_path, range(8))
    with (
        working_copy.open_copy(home.warehouse, "weather", home.scratch) as copy,
        pytest.raises(StaleCopyError, match="1 rows of raw"),
    ):
        with warehouses.connect(home.warehouse) as con:
            con.execute("delete from raw.interactions where payload::varchar like '%3 3 3%'")
        copy.merge()


@pytest.mark.slow
def test_what_is_collected_meanwhile_is_left_to_the_next_curation(
    home: Settings, pipe: Path, tmp_path: Path
):
    collect(home, tmp_path, range(8))
    curated = freeze(home, pipe, [lambda: collect(home, tmp_path, range(10, 12))])
    assert len(requests(home, curated)) == 8
    assert len(requests(home, freeze(home, pipe, [lambda: None]))) == 10


@pytest.mark.slow
def test_sides_that_somebody_else_settled_meanwhile_are_kept(
    home: Settings, pipe: Path, tmp_path: Path
):
    collect(home, tmp_path, range(8))

    def settle() -> None:
        with warehouses.connect(home.warehouse) as con:
            con.execute(
                "insert into curated.sides by name select 'weather' as workload_id,"
                " 'g' as group_id, 'tools' as split_by, 'train' as side, $now as settled_at",
                {"now": logs.NOW},
            )

    assert len(requests(home, freeze(home, pipe, [settle, lambda: None]))) == 8
    with warehouses.connect(home.warehouse) as con:
        sides = con.execute("select side from curated.sides where group_id = 'g'").fetchall()
        assert sides == [("train",)]


def test_verdicts_are_kept_though_there_is_nothing_to_freeze(home: Settings, tmp_path: Path):
    collect(home, tmp_path, [1])
    with pytest.raises(EmptySideError):
        snapshots.freeze_workload(workload(home), home, now=logs.NOW)
    with warehouses.connect(home.warehouse) as con:
        assert con.execute("select count(*) from curated.verdicts").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("is_rephrased", "left_out", "least"),
    [
        pytest.param(True, None, 0.5, id="rephrased"),
        pytest.param(True, 0.45, 0.0, id="rephrased-and-left-out"),
        pytest.param(False, None, 0.0, id="others"),
    ],
)
def test_the_card_counts_the_held_out_requests_that_a_training_row_paraphrases(
    home: Settings, tmp_path: Path, is_rephrased: bool, left_out: float | None, least: float
):
    chance = random.Random(0)
    vocabulary = ["".join(chance.choices("bcdfgklmnprstvaeiou", k=7)) for _ in range(2000)]
    questions: list[list[str]] = []
    for n in range(200):
        again = is_rephrased and n % 2
        words = questions[-1] if again else chance.choices(vocabulary, k=14)
        questions.append([*chance.sample(words, 12), *chance.choices(vocabulary, k=2)])
    lines = [
        logs.interaction(" ".join(words), response_id=f"r{n}", timestamp=1_760_000_000 + 60 * n)
        for n, words in enumerate(questions)
    ]
    with warehouses.connect(home.warehouse) as con:
        logs.load(con, logs.write(tmp_path / "log.jsonl", lines), now=logs.NOW)
    rules = Rules(holdout_share=0.2, overlap=Overlap(paraphrases=left_out), most_lost=1)
    read = workload(home).model_copy(update={"curate": rules})
    frozen = snapshots.freeze_workload(read, home, now=logs.NOW).snapshot
    assert frozen is not None
    record = manifest.read(frozen.path)["paraphrases"]
    assert isinstance(record, dict)
    compared, paraphrased = frozen.holdout_rows, int(str(record["paraphrased"]))
    assert record["compared"] == compared
    assert least * compared <= paraphrased <= 2 * least * compared
    assert (
        f"Of {compared} held-out requests, a row to train on paraphrases {paraphrased} ("
        in (frozen.path / "README.md").read_text()
    )


def test_an_erasure_waits_for_a_curation_that_has_kept_no_judgement_yet(
    home: Settings, tmp_path: Path
):
    collect(home, tmp_path, range(8))
    holder = held_elsewhere(home.warehouse, 600)

    def forget() -> bool:
        """Forget while a curation waits for the warehouse; return whether it was waited for."""
        deadline = time.monotonic() + 20
        while not (home.judgements / "weather").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        forgetting = others.submit(erased_copies.forget_judgements, home)
        waits = not wait([forgetting], timeout=0.5).done
        holder.kill()
        forgetting.result()
        return waits

    with ThreadPoolExecutor(2) as others:
        forgotten = others.submit(forget)
        snapshots.freeze_workload(workload(home), home, now=logs.NOW)
        assert forgotten.result()


def test_feedback_and_what_people_let_pass_reach_the_copy(home: Settings, tmp_path: Path):
    collect(home, tmp_path, range(8))
    feedback = logs.write(tmp_path / "given.jsonl", [logs.feedback(response_id="r1")])
    with warehouses.connect(home.warehouse) as con:
        logs.load_feedback(con, feedback, now=logs.NOW)
    assert (
        snapshots.freeze_workload(workload(home), home, now=logs.NOW).tally.counts["thumbs_down"]
        == 1
    )
    with warehouses.connect(home.warehouse) as con:
        fates = con.execute("select fate from curated.fates").fetchall()
        assert fates == [("used_as_label",)]


def sampled(home: Settings, at_most: int) -> tuple[FrozenWorkload, set[str]]:
    """Freeze a sample; return what was frozen and the ids of the interactions in it."""
    rules = Rules(at_most=at_most, holdout_share=0.5, validation_share=0, split_by="conversation")
    curated = snapshots.freeze_workload(
        workload(home).model_copy(update={"curate": rules}), home, now=logs.NOW
    )
    assert curated.snapshot is not None
    with warehouses.connect(home.warehouse) as con:
        ids = con.execute("select interaction_id from curated.verdicts").fetchall()
    return curated, {interaction_id for (interaction_id,) in ids}


def test_a_sample_has_all_rows_with_feedback_and_the_counts_say_what_it_leaves_out(
    home: Settings, tmp_path: Path
):
    collect(home, tmp_path, range(40))
    votes = [logs.feedback("thumb", "up", response_id=f"r{n}") for n in (3, 5, 8)]
    with warehouses.connect(home.warehouse) as con:
        logs.load_feedback(con, logs.write(tmp_path / "votes.jsonl", votes), now=logs.NOW)
    curated, ids = sampled(home, 10)
    assert curated.tally.counts == {"kept": 10, "not_sampled": 30}
    assert curated.snapshot is not None
    assert curated.snapshot.counts == curated.tally.counts
    assert curated.tally.interactions == curated.tally.judged == len(ids) == 10
    texts = requests(home, curated)
    assert {f"{n} {n} {n}: how is it there?" for n in (3, 5, 8)} <= texts


@pytest.mark.slow
def test_a_sample_is_the_same_every_night_and_changes_only_by_what_is_new(
    home: Settings, tmp_path: Path
):
    collect(home, tmp_path, range(60))
    first, ids = sampled(home, 20)
    again, same = sampled(home, 20)
    assert first.snapshot is not None
    assert again.snapshot is not None
    assert (first.snapshot.key, ids) == (again.snapshot.key, same)
    collect(home, tmp_path, range(60, 70))
    grown, later = sampled(home, 20)
    assert len(later) == 20
    assert 0 < len(later - ids) == grown.tally.judged < 10
    _, whole = sampled(home, 1_000)
    assert len(whole) == 70


def test_the_limit_of_a_sample_is_in_the_config_only_where_somebody_chose_it():
    # The keys of snapshots that were frozen without a limit stay as they are.
    assert "at_most" not in Rules().model_dump()
    for chosen in (None, 5):
        assert Rules.model_validate(Rules(at_most=chosen).model_dump()).at_most == chosen


def test_a_guard_that_nothing_could_pass_is_named(home: Settings, tmp_path: Path) -> None:
    """Each night's training would end as undecided, with no word of why."""
    called, abstained = Answer(calls=(Call("weather", {}),)).to_json(), Answer("No.").to_json()
    answers = [called] * 80 + [abstained] * 20
    pq.write_table(pa.table({"answer": answers}), tmp_path / "holdout.parquet")
    guards = (
        Guard(task="refusals", metric="right", margin=0.1),
        Guard(metric="name_and_arguments", margin=0.1),
    )
    frozen = Snapshot(tmp_path, "s1", "v1", 1, 0, 100, {}, {"holdout": 100}, 1)

    def named(*, refusals: float, abstention: float) -> list[str]:
        first = guards[0].model_copy(update={"margin": refusals})
        policy = Policy(abstention_margin=abstention, guards=(first, guards[1]))
        changed = {"gate": policy, "evaluate": EvaluationSettings(built_in=("refusals",))}
        return snapshots.shortages(workload(home).model_copy(update=changed), frozen)

    first, second = named(refusals=0.1, abstention=0.1)
    assert first.startswith(
        "the gate can't show that abstention of holdout stays within its margin"
    )
    assert "takes 36 independent requests, and there are 20; " in first
    assert "unless its margin is 0.17 or more" in first
    assert "that right of refusals stays" in second
    assert "there are 32; " in second
    assert named(refusals=0.11, abstention=0.17) == []


def test_the_schema_of_an_answer_is_frozen_where_it_is_tested_and_holds_no_value_of_a_request(
    home: Settings, tmp_path: Path
):
    def asked(number: int) -> dict[str, Json]:
        # One in ten has a schema of its own, with what the user wrote in it.
        choices: list[Json] = ["Rome", "ann@example.com"]
        schema: dict[str, Json] = {"properties": {"city": {"enum": choices}}, "required": ["city"]}
        if number % 10 == 0:
            schema["enum"] = [f"of request {number}"]
        line = logs.interaction(
            f"{number} {number} {number}: how is it there?",
            message=logs.say('{"city": "Rome"}'),
            response_id=f"r{number}",
        )
        named: Json = {"name": "trip", "schema": schema}
        form: Json = {"type": "json_schema", "json_schema": named}
        request = line["request"]
        assert isinstance(request, dict)
        return {**line, "request": {**request, "response_format": form}}

    with warehouses.connect(home.warehouse) as con:
        log = logs.write(tmp_path / "log.jsonl", [asked(number) for number in range(40)])
        logs.load(con, log, now=logs.NOW)
    frozen = snapshots.freeze_workload(workload(home), home, now=logs.NOW).snapshot
    assert frozen is not None
    held = pq.read_table(frozen.path / "holdout.parquet").to_pylist()
    schemas = [str(row["response_schema"]) for row in held]
    assert len(set(schemas)) == 2
    assert schemas.count("") == sum("0 " in str(row["messages"]) for row in held) > 0
    assert json.loads(max(schemas)) == {
        "properties": {"city": {"enum": ["Rome", "<EMAIL_1>"]}},
        "required": ["city"],
    }
    assert "response_schema" not in pq.read_schema(frozen.path / "train.parquet").names
    count = holdout_task.count_measured(frozen.path, "json", "schema_valid", HOLDOUT)
    assert count == len(held) - schemas.count("")
