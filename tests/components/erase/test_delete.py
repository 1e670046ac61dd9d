"""One person is erased; all other people keep every byte."""

import json
import shutil
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import pytest

from components.collect import retention
from components.curate import curate_workload, held_rows
from components.curate.held_rows import HeldInteraction, Loss
from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent
from components.erase import delete
from components.erase.affected_outputs import Output, Outputs
from components.erase.certificate import Certificate
from components.erase.subject import Subject
from components.gate import evidence_folder
from components.schema import Json
from components.scorecard import VERDICTS_FILE
from components.store import manifest, output_folders, spool, warehouse
from components.store.warehouse import Connection
from flows import sources
from flows.erasing import erase
from flows.machines import erased_copies
from tests.components.erase.conftest import Eraser
from tests.support import erased_home, logs, telemetry, warehouses
from tests.support.erased_home import ANN, BOB, CYD, EACH, RULES, WORKLOAD, House

WORDS = (ANN, "ann asks about", "rains on ann", "ann likes answer")
COMMENTS = {"about-ann": f"worse for {ANN}", "about-bob": f"worse for {BOB}"}


@dataclass(frozen=True)
class Erased:
    """A house from which ann was erased, and what was seen of her before."""

    home: House
    written: Certificate
    others: list[warehouse.Row]
    held: list[Path]


@pytest.fixture(scope="module")
def erased(built: House, eraser: Eraser, tmp_path_factory: pytest.TempPathFactory) -> Erased:
    """Ann is in every kind of place, and is erased once; tests only look, or copy the house."""
    home = erased_home.move(built, tmp_path_factory.mktemp("erased") / "home")
    settings = home.settings
    for path in verdicts_of_a_judge(home):
        path.parent.mkdir(exist_ok=True)
        path.write_text('["of a question", "first"]\n')
    killed_freeze(home).mkdir()
    text = erased_home.question(ANN, 3).encode()
    (killed_freeze(home) / "train.parquet").write_bytes(b"PAR1" + text)
    with warehouses.connect(settings.warehouse) as con:
        con.execute("set force_compression = 'uncompressed'")
        con.execute("create table staging.copy as from raw.interactions")
        write_decisions(con)
        con.execute("checkpoint")
    others = [row for row in home.raw() if ANN not in str(row["payload"])]
    held = erased_home.holds(settings.home, ANN)
    return Erased(home, eraser(settings, Subject(ANN)), others, held)


def verdicts_of_a_judge(home: House) -> list[Path]:
    return [home.settings.scorecards / name / VERDICTS_FILE for name in (WORKLOAD, "other")]


def killed_freeze(home: House) -> Path:
    return home.settings.snapshots / WORKLOAD / "killed"


def write_decisions(con: Connection) -> None:
    for run, text in COMMENTS.items():
        with warehouse.transaction(con):
            event = LogEvent("reject", WORKLOAD, "e1", run, logs.NOW, comment=text, approver="eve")
            decision_log.append_event(con, event)


def test_every_row_of_the_subject_is_deleted_and_others_stay_byte_for_byte(erased: Erased) -> None:
    home, written = erased.home, erased.written
    assert home.raw() == erased.others
    assert len(erased.others) == 2 * EACH
    assert [row["actor_id"] for row in home.raw("feedback")] == ["cyd-55e0", "cyd-55e0"]
    assert [row["line"] for row in home.raw("quarantine")] == [3 * EACH + 2]
    assert written.erased["raw.interactions"] == EACH
    assert written.erased["raw.feedback"] == 2
    assert written.erased["raw.quarantine"] == 1
    assert written.is_clean
    assert not written.searched.left


def test_a_judges_verdicts_are_forgotten_since_their_keys_are_digests_of_requests(
    erased: Erased,
) -> None:
    assert not any(path.exists() for path in verdicts_of_a_judge(erased.home))


def test_what_a_killed_freeze_has_half_written_goes_too(erased: Erased) -> None:
    assert not killed_freeze(erased.home).exists()


@pytest.mark.slow
def test_a_snapshot_of_a_freeze_that_was_killed_meanwhile_goes_with_the_next_erasure(
    home: House, eraser: Eraser, tmp_path: Path
) -> None:
    """It was finished, and its curation was killed before it saw that the rows are gone."""
    frozen = shutil.copytree(home.frozen.path, tmp_path / "frozen")
    left = home.settings.home / "left.json"
    left.write_text(json.dumps({"user_id": ANN}))
    assert not eraser(home.settings, Subject(ANN)).is_clean
    left.unlink()
    later = shutil.copytree(frozen, home.frozen.path.with_name("later"))
    assert eraser(home.settings, Subject(ANN)).is_clean
    assert not later.exists()


def test_a_measurement_that_is_being_written_is_waited_for(
    tmp_path: Path,
) -> None:
    names = ("snapshots", "adapters", "scorecards", "evidence", "jobs")
    outputs = Outputs(*(tmp_path / name for name in names))
    snapshot, root = outputs.snapshots / WORKLOAD / "s1", outputs.scorecards / WORKLOAD
    for folder in (snapshot, root / "killed"):
        folder.mkdir(parents=True)
        (folder / "samples.parquet").write_bytes(b"PAR1")
    manifest.write(snapshot, kind="snapshot", now=logs.NOW, body={})
    other = Output("scorecard", WORKLOAD, "erased")
    forgets = threading.Thread(target=delete.forget_copies, args=(outputs, [other]))
    with output_folders.while_kept(output_folders.count_copies([snapshot]), root / "measured"):
        (root / "measured").mkdir()
        (root / "measured" / "samples.parquet").write_bytes(b"PAR1")
        forgets.start()
        forgets.join(0.3)
        manifest.write(root / "measured", kind="scorecard", now=logs.NOW, body={})
    forgets.join()
    assert [path.name for path in root.iterdir()] == ["measured"]


def test_no_text_of_the_subject_is_left_in_any_byte_of_the_home(erased: Erased) -> None:
    settings = erased.home.settings
    assert settings.warehouse in erased.held
    for word in WORDS:
        assert erased_home.holds(settings.home, word) == []
    assert erased_home.holds(settings.home, BOB)


def test_outputs_of_the_rows_are_deleted_and_the_verdict_stays_readable(erased: Erased) -> None:
    home = erased.home
    outputs = {(output.kind, output.key) for output in erased.written.tainted}
    digest = home.evidence.name
    assert outputs == {
        ("snapshot", home.frozen.key),
        ("adapter", "a1"),
        ("scorecard", "c1"),
        ("evidence", digest),
    }
    assert not home.frozen.path.exists()
    assert not home.scorecard.exists()
    assert not (home.settings.jobs / "train-a1").exists()
    assert (home.adapter / "adapter_model.safetensors").exists()
    assert evidence_folder.read(home.evidence).digest == digest
    assert "Erased" in (home.evidence / "report.html").read_text()
    assert not (home.evidence / "samples.parquet").exists()
    with warehouses.connect(home.settings.warehouse) as con:
        assert con.execute("select kind from raw.manifests").fetchall() == []


@pytest.mark.slow
def test_the_next_curation_freezes_the_remaining_rows_on_the_same_sides(
    home: House, eraser: Eraser
) -> None:
    def sides(folder: Path) -> dict[str, str]:
        return {
            str(row["example_id"]): side
            for side in ("train", "holdout")
            for row in pq.read_table(folder / f"{side}.parquet").to_pylist()
        }

    before = sides(home.frozen.path)
    eraser(home.settings, Subject(ANN))
    after = sides(erased_home.collect(home.settings, home.log, home.votes).path)
    assert len(after) == 2 * EACH
    assert after.items() <= before.items()


def refused(home: House) -> list[dict[str, Any]]:
    """Return the quarantined lines; their path is where they were read last."""
    return [{**row, "path": ""} for row in home.raw("quarantine")]


def test_loading_the_same_files_again_brings_nothing_back(erased: Erased, tmp_path: Path) -> None:
    home = erased_home.move(erased.home, tmp_path / "home")
    kept = home.raw(), home.raw("feedback"), refused(home)
    copy = home.log.with_name("copy.jsonl")
    copy.write_text(home.log.read_text() + json.dumps(erased_home.line(BOB, 99)) + "\n")
    again = home.votes.with_name("again.jsonl")
    again.write_text(home.votes.read_text() + "\n")
    with warehouses.connect(home.settings.warehouse) as con:
        con.execute("delete from raw.files")
        loaded = logs.load(con, home.log, now=logs.NOW)
        assert (loaded.new, loaded.known) == (0, 3 * EACH)
        assert logs.load_feedback(con, again, now=logs.NOW).new == 0
    assert (home.raw(), home.raw("feedback"), refused(home)) == kept
    with warehouses.connect(home.settings.warehouse) as con:
        assert logs.load(con, copy, now=logs.NOW).new == 1
    assert [row["payload"] for row in home.raw() if ANN in str(row["payload"])] == []


@pytest.mark.slow
def test_erased_records_in_another_form_are_not_loaded_again(home: House, eraser: Eraser) -> None:
    eraser(home.settings, Subject(ANN))
    kept = home.raw()
    lines = [json.loads(text) for text in home.log.read_text().splitlines() if ANN in text]
    backwards = [{key: line[key] for key in reversed(line)} for line in lines if "request" in line]
    for line in backwards:
        line["request"] = {key: line["request"][key] for key in reversed(line["request"])}
        line["response"] = {key: line["response"][key] for key in reversed(line["response"])}
        line["timestamp"] = float(line["timestamp"])
    nameless = [logs.without(line, "user_id", "conversation_id") for line in backwards]
    path = logs.write(home.log.with_name("reworded.jsonl"), [*backwards, *nameless])
    with warehouses.connect(home.settings.warehouse) as con:
        loaded = logs.load(con, path, now=logs.NOW)
    assert (loaded.new, loaded.known) == (0, 2 * len(backwards))
    assert len(backwards) >= EACH
    assert home.raw() == kept


def test_a_record_nested_too_deeply_to_be_compared_is_erased_with_the_others(
    home: House, eraser: Eraser
) -> None:
    note = "what ann asks in a record that is nested deeper than anybody can read"
    plain = erased_home.line(ANN, 60) | {"note": note}
    backwards = {key: plain[key] for key in reversed(plain)}
    nested = ["[" * depth + "]" * depth for depth in (990, 2_000)]
    deep = [
        [f'{json.dumps(line)[:-1]}, "more": {more}}}' for more in nested]
        for line in (plain, backwards)
    ]
    path = home.log.with_name("deep.jsonl")
    path.write_text("\n".join(deep[0]) + "\n")
    with warehouses.connect(home.settings.warehouse) as con:
        assert logs.load(con, path, now=logs.NOW).new >= 1
    written = eraser(home.settings, Subject(ANN))
    assert written.erased["raw.interactions"] > EACH
    assert written.is_clean
    kept = home.raw()
    assert not any(ANN in str(row["payload"]) for row in kept)
    path.write_text("\n".join([*deep[0], *deep[1]]) + "\n")
    with warehouses.connect(home.settings.warehouse) as con:
        assert logs.load(con, path, now=logs.NOW).new == 0
    assert home.raw() == kept


def test_a_conversation_goes_without_the_rest_of_its_user(home: House, eraser: Eraser) -> None:
    eraser(home.settings, Subject(f"talk-{ANN}-0"))
    left = [row for row in home.raw() if ANN in str(row["payload"])]
    assert len(left) == EACH - 2


@pytest.mark.slow
def test_the_same_id_of_another_client_stays(home: House, eraser: Eraser) -> None:
    theirs = erased_home.line(ANN, 50) | {"client_id": "shop"}
    path = logs.write(home.log.with_name("shop.jsonl"), [theirs])
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, path, now=logs.NOW)
    written = eraser(home.settings, Subject(ANN, client_id="app"))
    (left,) = [row for row in home.raw() if ANN in str(row["payload"])]
    assert left["client_id"] == "shop"
    assert written.is_clean


def test_a_turn_that_names_no_user_goes_with_its_conversation(home: House, eraser: Eraser) -> None:
    said = erased_home.line(ANN, 51) | {"conversation_id": f"talk-{ANN}-1"}
    guest = erased_home.line(ANN, 52) | {"conversation_id": f"talk-{ANN}-1", "user_id": "Guest"}
    path = logs.write(home.log.with_name("unnamed.jsonl"), [logs.without(said, "user_id"), guest])
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, path, now=logs.NOW)
    assert eraser(home.settings, Subject(ANN)).erased["raw.interactions"] == EACH + 2


@pytest.mark.parametrize("no_id", ["", "Unknown", "0" * 32])
def test_what_clients_write_where_they_know_no_id_ties_nobody_to_a_person(
    no_id: str, home: House
) -> None:
    """Of a person such ids are, too; an erasure took the rows of all others with them."""
    hers = erased_home.line(ANN, 51) | {"conversation_id": no_id, "trace_id": no_id}
    response = cast("dict[str, Json]", hers["response"])
    hers["response"] = response | {"id": no_id}
    others = logs.interaction("Whose question is this one?", response_id="u1", trace_id=no_id)
    vote = logs.feedback(response_id=no_id, actor_id=CYD, comment="of an answer without an id")
    broken: dict[str, Json] = {"text": "a refused line of somebody else", "id": no_id}
    log = logs.write(home.log.with_name("no_ids.jsonl"), [hers, others, broken])
    votes = logs.write(home.log.with_name("no_ids_of_votes.jsonl"), [vote])
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, votes, now=logs.NOW)
    match, _ = erase.find_subject(home.settings, Subject(ANN))
    assert match.matched.rows == {
        ("raw.interactions", "user"): EACH + 1,
        ("raw.feedback", "actor"): 1,
        ("raw.feedback", "about an erased interaction"): 1,
    }
    assert len(match.matched.quarantine) == 1


def test_refused_lines_of_the_users_conversation_go_and_those_of_others_in_it_stay(
    home: House,
) -> None:
    talk = {"conversation_id": f"talk-{ANN}-1"}
    refused: list[dict[str, Json]] = [
        {"text": "cut off", **talk},
        {"text": "by a guest", "user_id": "guest", **talk},
        {"text": "somebody else in it", "user_id": BOB, **talk},
        {"request": {"user": BOB}, **talk},
        {"text": "another one", "conversation_id": f"talk-{ANN}-100"},
    ]
    path = logs.write(home.log.with_name("refused.jsonl"), refused)
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, path, now=logs.NOW)
    match, _ = erase.find_subject(home.settings, Subject(ANN))
    assert len(match.matched.quarantine) == 1 + 2


@pytest.mark.parametrize(
    "mentions",
    [
        pytest.param(False, id="mentions-stay", marks=pytest.mark.slow),
        pytest.param(True, id="mentions-go"),
    ],
)
def test_other_peoples_rows_that_mention_the_id_are_reported_and_deleted_on_request(
    home: House, eraser: Eraser, mentions: bool
) -> None:
    mention = logs.interaction(f"Is {ANN} online?", response_id="m1", user_id=BOB)
    path = logs.write(home.log.with_name("mention.jsonl"), [mention])
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, path, now=logs.NOW)
    subject = Subject(ANN, mentions=mentions)
    match, _ = erase.find_subject(home.settings, subject)
    assert match.matched.mentions == ({} if mentions else {"raw.interactions": 1})
    written = eraser(home.settings, subject)
    left = [row for row in home.raw() if ANN in str(row["payload"])]
    assert len(left) == (0 if mentions else 1)
    assert {leftover.kind for leftover in written.searched.left} == (
        set() if mentions else {"mention"}
    )
    searched = erase.verify_erasure(home.settings, subject=Subject(ANN), certificate_path=None)
    assert searched.is_clean(allow_mentions=False) is mentions


@pytest.mark.parametrize(
    "name", ["home", "link", pytest.param("sources/../home", marks=pytest.mark.slow)]
)
def test_archived_rows_go_and_the_rest_of_their_file_stays(
    name: str, home: House, eraser: Eraser
) -> None:
    place = home.settings.home
    place.with_name("link").symlink_to(place)
    old = [
        erased_home.line(person, 60) | {"timestamp": 1_700_000_000} for person in erased_home.PEOPLE
    ]
    answers: list[Json] = [{"id": f"old-{n}"} for n in range(3)]
    broken = [row | {"response": answer} for row, answer in zip(old, answers, strict=True)]
    path = logs.write(home.log.with_name("old.jsonl"), broken)
    with warehouses.connect(home.settings.warehouse) as con:
        logs.load(con, path, now=logs.NOW)
        archived = retention.archive(
            con,
            home.settings.archive_root,
            "weather",
            snapshots=home.settings.snapshots,
            days=90,
            now=logs.NOW,
        )
        assert archived == 3
    (before,) = home.settings.archive.rglob("*.parquet")
    kept = [row for row in pq.read_table(before).to_pylist() if ANN not in row["payload"]]
    written = eraser(replace(home.settings, home=place.parent / name), Subject(ANN))
    (after,) = home.settings.archive.rglob("*.parquet")
    assert pq.read_table(after).to_pylist() == kept
    assert after != before
    assert written.erased["archive of interactions"] == 1
    with warehouses.connect(home.settings.warehouse) as con:
        assert con.execute("select distinct path from raw.archived").fetchall() == [(str(after),)]
        con.execute("delete from raw.files")
        assert logs.load(con, path, now=logs.NOW).new == 0


def test_what_waits_in_the_spool_is_loaded_first_and_goes_too(home: House, eraser: Eraser) -> None:
    folder = home.settings.spool
    writer = spool.Writer(folder)
    for person in (ANN, BOB):
        body = json.dumps(erased_home.line(person, 80)).encode()
        writer.commit([spool.line("interactions", "app", body)])
    writer.seal()
    torn = spool.line("feedback", "app", json.dumps(erased_home.vote(ANN, 5, BOB)).encode())
    (folder / "killed.partial").write_bytes(torn + torn[:40])
    written = eraser(home.settings, Subject(ANN))
    assert written.erased["raw.interactions"] == EACH + 1
    assert written.erased["raw.feedback"] == 3
    assert list(folder.iterdir()) == []
    assert len(home.raw()) == 2 * EACH + 1


def test_a_span_that_waits_for_its_messages_in_the_spool_goes_too(
    home: House, eraser: Eraser
) -> None:
    span = telemetry.call(gen_ai__operation__name="chat", user__id=ANN)
    writer = spool.Writer(home.settings.spool)
    writer.commit([spool.line("traces", "app", json.dumps(telemetry.json_form(span)).encode())])
    writer.seal()
    sources.load_spool(home.settings, now=datetime.now(UTC))
    assert erased_home.holds(home.settings.spool, ANN), "it waits"
    eraser(home.settings, Subject(ANN))
    assert list(home.settings.spool.iterdir()) == []
    assert erased_home.holds(home.settings.home, ANN) == []


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(False, id="sent-again"),
        pytest.param(True, id="beside-a-late-span", marks=pytest.mark.slow),
    ],
)
def test_a_part_of_an_erased_call_that_is_sent_again_restores_nothing(
    home: House, eraser: Eraser, late: bool
) -> None:
    question = f"What does {ANN} think?"
    span, records = telemetry.logs_of_a_span(
        ("gen_ai.user.message", {"content": question}),
        ("gen_ai.choice", {"index": 0, "message": {"content": "Rain.", "role": "assistant"}}),
    )
    body = json.dumps(telemetry.json_form(records)).encode()
    bare = json.dumps(telemetry.json_form(span)).encode()

    def send(*parts: bytes) -> None:
        writer = spool.Writer(home.settings.spool)
        kinds: dict[bytes, spool.Kind] = {body: "logs", bare: "traces"}
        writer.commit([spool.line(kinds[part], "app", part) for part in parts])
        writer.seal()
        sources.load_spool(home.settings, now=datetime.now(UTC) + timedelta(minutes=5))

    send(*([body] if late else [bare, body]))
    written = eraser(home.settings, Subject(ANN, mentions=True))
    assert written.erased["raw.interactions"] == EACH + 1
    send(*([bare, body] if late else [body]))
    assert len(home.raw("quarantine")) == (2 if late else 1), "what it lacked came too late"
    assert erased_home.holds(home.settings.home, question) == []
    if not late:
        searched = erase.verify_erasure(home.settings, subject=Subject(ANN), certificate_path=None)
        assert searched.left == ()


def test_a_receiver_that_holds_its_segment_stops_an_erasure_before_it_begins(
    home: House, eraser: Eraser
) -> None:
    writer = spool.Writer(home.settings.spool)
    writer.commit(
        [spool.line("interactions", "app", json.dumps(erased_home.line(ANN, 80)).encode())]
    )
    with pytest.raises(erase.SpoolHeldError, match="stop the receiver"):
        erase.load_spool(home.settings, now=logs.NOW, patience=0.3)
    assert len(home.raw()) == 3 * EACH
    writer.seal()
    assert eraser(home.settings, Subject(ANN)).erased["raw.interactions"] == EACH + 1


def test_an_actor_goes_from_what_is_kept_of_floods_and_digests_of_texts_go(
    home: House, eraser: Eraser
) -> None:
    with warehouses.connect(home.settings.warehouse) as con:
        con.execute(
            "insert into curated.bursts select 'weather', 'brigade', [$a, $b], now(), now(), 9, 1,"
            " 0, 'up', []",
            {"a": f"app {ANN}", "b": f"app {BOB}"},
        )
        con.execute("insert into curated.token_counts values ('t', 'digest of a text', 9)")
        con.execute("insert into curated.example_digests values ('weather', 'digest', 'another')")
        assert con.execute("from curated.shares").fetchall()
    written = eraser(home.settings, Subject(ANN, client_id="app"))
    assert written.erased["curated.bursts"] == 1
    assert written.erased["curated.token_counts"] == 1
    assert written.erased["curated.example_digests"] >= 1
    assert written.searched.left == ()


def test_who_is_called_like_a_workload_a_client_or_a_side_takes_nobody_elses_rows_along(
    home: House,
) -> None:
    settled = ("sides", "holdout_rows", "holdout_versions", "clients")
    with warehouses.connect(home.settings.warehouse) as con:
        con.execute("insert into curated.clients values (?, 'app', now())", [WORKLOAD])
        before = {table: con.table(f"curated.{table}").fetchall() for table in settled}
        assert all(before.values())
        for name in (WORKLOAD, "app", "train", RULES.split_by):
            delete.erase(con, Subject(name), erased_copies.outputs_of(home.settings), now=logs.NOW)
        assert before == {table: con.table(f"curated.{table}").fetchall() for table in settled}


def test_what_an_operator_of_the_same_name_released_stays_and_notes_about_the_subject_go(
    home: House, eraser: Eraser
) -> None:
    with warehouses.connect(home.settings.warehouse) as con:
        others = [str(row["interaction_id"]) for row in home.raw() if BOB in str(row["payload"])]
        for row, note in zip(others, (ANN, f"asked {ANN} first", "fine"), strict=False):
            held = HeldInteraction(row, WORKLOAD, "app", logs.NOW, "injection", "", "", None)
            held_rows.release_held(con, held, by=ANN, note=note, now=logs.NOW)
        loss = Loss(WORKLOAD, "too_short", 5, 10)
        held_rows.release_losses(con, [loss], by=ANN, note=f"for {ANN}, not eve-1", now=logs.NOW)
    assert erase.find_subject(home.settings, Subject("eve-1"))[0].words == 1
    written = eraser(home.settings, Subject(ANN))
    with warehouses.connect(home.settings.warehouse) as con:
        kept = con.table("curated.releases").project("released_by, note").order("note").fetchall()
        assert kept == [(ANN, "(erased)"), (ANN, "(erased)"), (ANN, "fine")]
        assert con.table("curated.released_losses").project("released_by, note").fetchall() == [
            (ANN, "(erased)")
        ]
    assert written.erased["curated.releases"] == 2
    eraser(home.settings, Subject(ANN, mentions=True))
    with warehouses.connect(home.settings.warehouse) as con:
        kept = con.table("curated.releases").project("released_by").distinct().fetchall()
        assert kept == [("(erased)",)]
    searched = erase.verify_erasure(home.settings, subject=Subject(ANN), certificate_path=None)
    assert searched.is_clean(allow_mentions=False)


def test_what_people_wrote_about_the_subject_goes_from_decisions_and_their_chain_holds(
    erased: Erased,
) -> None:
    with warehouses.connect(erased.home.settings.warehouse) as con:
        links = decision_log.links(con)
        assert chain.first_broken(links, decision_log.read_head(con)) is None
    assert [(link.approver, link.comment) for link in links] == [
        ("eve", None),
        ("eve", COMMENTS["about-bob"]),
    ]
    assert erased.written.erased["raw.decision_words"] == 1


@pytest.mark.slow
def test_the_keys_of_the_subjects_surrogates_go_and_others_keep_theirs(
    home: House, eraser: Eraser, tmp_path: Path
) -> None:
    lines = [
        logs.interaction(
            f"Send the {thing} to {thing}@acme.com, I'm {who.title()}.",
            response_id=thing,
            conversation_id=thing,
            user_id=user,
        )
        for who, user, thing in (("Sofia", ANN, "invoice"), ("Jonas", BOB, "voucher"))
    ]

    def curated(*, keys: int) -> dict[str, str]:
        with warehouses.connect(home.settings.warehouse) as con:
            con.execute("set force_compression = 'uncompressed'")
            logs.load(con, logs.write(tmp_path / "more.jsonl", lines), now=logs.NOW)
            curate_workload.curate(con, WORKLOAD, erased_home.RULES, now=logs.NOW)
            kept = warehouse.rows(con, "from curated.surrogate_keys")
            assert len(kept) == keys
            rows = warehouse.rows(con, "from curated.examples")
        texts = [str(row["messages"]) for row in rows if "Send the" in str(row["messages"])]
        return {thing: text for text in texts for thing in ("invoice", "voucher")
                if f"the {thing}" in text}  # fmt: skip

    before = curated(keys=2)
    surrogate = before["invoice"].partition(" to ")[2].partition(",")[0]
    assert "@" in surrogate
    assert erased_home.holds(home.settings.home, surrogate)
    eraser(home.settings, Subject(ANN))
    assert erased_home.holds(home.settings.home, surrogate) == []
    with warehouses.connect(home.settings.warehouse) as con:
        (left,) = warehouse.rows(con, "from curated.surrogate_keys")
    assert curated(keys=1) == {"voucher": before["voucher"]}
    with warehouses.connect(home.settings.warehouse) as con:
        assert warehouse.rows(con, "from curated.surrogate_keys") == [left]
