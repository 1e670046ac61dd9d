"""Review in a terminal or through a file, and curation that learns from the answers."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from components import scorecard
from components.curate import curate_workload
from components.curate.settings import Rules
from components.evaluate.task_metrics import CALL_METRICS, TEXT_METRICS
from components.review import pick
from components.review.pick import Reviewable, ReviewQuestion
from components.schema import Json
from components.scorecard import CONSTANT, HOLDOUT
from components.store.warehouse import Connection
from flows import review as reviewing
from flows import settings
from flows.cli import review_commands
from tests.support import cards, logs, warehouses

RULES = Rules(holdout_share=0.5, split_by="conversation")
CITIES = ("Rome", "Oslo", "Lima", "Kyiv", "Bonn", "Cork")
CONFIG = """\
workload: weather
base: base
curate: {holdout_share: 0.5, split_by: conversation, preferences: {trusted: [rev]}}
"""


def line(city: str) -> dict[str, Json]:
    return logs.interaction(
        f"Shall I take an umbrella to {city} on Monday, or is it dry there?",
        response_id=f"r-{city}",
        message=logs.say(f"In {city} it is dry on Monday, so leave the umbrella at home."),
        timestamp=1_760_000_000 + CITIES.index(city),
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with six requests: three with agreed votes, one disputed, two without votes."""
    feedback = [
        logs.feedback("thumb", "up", response_id="r-Rome"),
        logs.feedback("thumb", "down", response_id="r-Oslo"),
        logs.feedback("correction", logs.say("Take it along."), response_id="r-Lima"),
        logs.feedback("thumb", "up", response_id="r-Kyiv", actor_id="ann"),
        logs.feedback("thumb", "down", response_id="r-Kyiv", actor_id="bob"),
    ]
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        log = logs.write(tmp_path / "log.jsonl", [line(city) for city in CITIES])
        logs.load(con, log, now=logs.NOW)
        logs.load_feedback(con, logs.write(tmp_path / "votes.jsonl", feedback), now=logs.NOW)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    (tmp_path / "weather.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def con(home: Path) -> Iterator[Connection]:
    with warehouses.connect(home / "warehouse.duckdb") as con:
        yield con


def asked(con: Connection, reviewer: str = "rev") -> list[str]:
    """Return the answers that a reviewer is asked about, in order."""
    curate_workload.curate(con, "weather", RULES, now=logs.NOW)
    chosen = pick.choose_questions(con, "weather", 20, reviewer=reviewer, measured={})
    return [question.about.response_id for question in chosen]


def test_disputed_requests_come_first_and_agreed_ones_never(con: Connection) -> None:
    first, *rest = asked(con)
    assert first == "r-Kyiv"
    assert sorted(rest) == ["r-Bonn", "r-Cork"]
    assert "r-Kyiv" not in asked(con, reviewer="ann")


def test_a_rating_in_the_middle_disputes_nothing(con: Connection, tmp_path: Path) -> None:
    middle = logs.feedback("rating", 3, scale=[1, 5], response_id="r-Oslo", actor_id="bob")
    logs.load_feedback(con, logs.write(tmp_path / "more.jsonl", [middle]), now=logs.NOW)
    assert "r-Oslo" not in asked(con)


def test_nobody_is_asked_about_an_answer_whose_id_other_requests_have(
    con: Connection, tmp_path: Path
) -> None:
    """The person's answer, which names the id, could not be learned."""
    questions = ("Who is the king of Spain?", "Sing me a song about the rain", "How old is it?")
    lines = [
        logs.interaction(question, response_id="chatcmpl-42" if n < 2 else "own", timestamp=n)
        for n, question in enumerate(questions)
    ]
    logs.load(con, logs.write(tmp_path / "ollama.jsonl", lines), now=logs.NOW)
    response_ids = asked(con)
    assert "own" in response_ids
    assert "chatcmpl-42" not in response_ids


def test_models_that_disagree_put_a_request_first(con: Connection, tmp_path: Path) -> None:
    curate_workload.curate(con, "weather", RULES, now=logs.NOW)
    chosen = pick.choose_questions(con, "weather", 20, reviewer="rev", measured={})
    last = chosen[-1].about
    for adapter, right in ((None, 1.0), ("a1", 0.0), (CONSTANT, 0.0)):
        sample = replace(cards.sample(0, right), example_id=last.example_id)
        conditions = {"holdout_version": "v1"}
        body = {"base": "b", "adapter": adapter, "task": HOLDOUT, "conditions": conditions}
        card = tmp_path / f"cards/{adapter}"
        scorecard.write(card, [sample], CALL_METRICS, body=body, now=logs.NOW)
    models = pick.read_measured(tmp_path / "cards", "correct_name")
    again = pick.choose_questions(con, "weather", 20, reviewer="rev", measured=models)
    where = [question.about.interaction_id for question in again].index(last.interaction_id)
    assert where == 1  # after the one that people disagree about
    # A baseline is no model that could have learned what is right.
    assert "models disagree: 1 of 2" in again[where].reasons[0].text


def test_a_model_counts_by_its_newest_scorecard_whatever_its_key(tmp_path: Path) -> None:
    sample = replace(cards.sample(0, 1.0), example_id="e1")
    for key, right, day in (("f0", 0.0, 1), ("0f", 1.0, 2)):
        body = {"base": "b", "task": HOLDOUT, "conditions": {"holdout_version": "v1"}}
        body |= {"adapter": None}
        answer, at = replace(sample, scores={"correct_name": right}), logs.NOW.replace(day=day)
        scorecard.write(tmp_path / key, [answer], CALL_METRICS, body=body, now=at)
    assert pick.read_measured(tmp_path, "correct_name") == {"e1": pick.MeasuredAnswers(1, 1)}


def test_models_are_not_said_to_disagree_by_a_score_between_right_and_wrong(tmp_path: Path) -> None:
    """By F1 no text is right, and every measured request came before what people dispute."""
    scores = (0.7, 0.4, 1.0)
    samples = [replace(cards.sample(n, 1.0), scores={"f1": s}) for n, s in enumerate(scores)]
    body = {"base": "b", "task": HOLDOUT, "conditions": {"holdout_version": "v1"}, "adapter": None}
    scorecard.write(tmp_path / "f1", samples, TEXT_METRICS, body=body, now=logs.NOW)
    assert pick.read_measured(tmp_path, "f1") == {}


HALF = "half a character: \ud83d"


HOSTILE: list[tuple[dict[str, Json], str]] = [
    ({"interaction_id": HALF}, "it has half a character"),
    ({"comment": HALF}, "it has half a character"),
    ({"correction": HALF}, "it has half a character"),
    ({"verdict": ["good"]}, "`verdict` is ["),
    ({"asked_at": "9999-12-31T23:59:59-23:59"}, "`timestamp`"),
]


def test_a_line_that_no_labelling_tool_writes_is_quarantined_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    bare = logs.interaction("Is it dry in Cork?")
    bare["response"] = {"choices": cast("dict[str, Json]", bare["response"])["choices"]}
    with warehouses.connect(home / "warehouse.duckdb") as con:
        logs.load(con, logs.write(home / "bare.jsonl", [bare]), now=logs.NOW)
        sql = "select interaction_id from raw.interactions where payload "
        ((known,),) = con.execute(sql + "like '%r-Rome%'").fetchall()
        ((without_id,),) = con.execute(sql + "like '%dry in Cork%'").fetchall()
    good = {"interaction_id": known, "client_id": "app", "response_id": "r-Rome"}
    good |= {"verdict": "good", "asked_at": logs.NOW.isoformat()}
    unknown = {key: good[key] for key in good if key != "response_id"}
    lines = [good | changes for changes, _ in HOSTILE]
    lines += [{**unknown, "interaction_id": without_id}, good]
    loaded, _ = reviewing.import_answers(
        settings.load(),
        logs.write(home / "labels.jsonl", lines),
        "weather",
        reviewer="rev",
        now=logs.NOW,
    )
    assert (loaded.new, loaded.quarantined) == (1, len(HOSTILE) + 1)
    with warehouses.connect(home / "warehouse.duckdb") as con:
        recorded = con.execute("select reason from raw.quarantine order by line").fetchall()
    reasons = [*(reason for _, reason in HOSTILE), "missing keys: response_id"]
    assert [reason in text for reason, (text,) in zip(reasons, recorded, strict=True)] == [
        True
    ] * len(reasons)


def test_an_answer_of_bytes_that_are_no_text_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    about = Reviewable("i1", "weather", "app", "r-Bonn", "", "", "", "", "", 1, 0, 1, 0, 0, [])

    def answer(_: int, question: ReviewQuestion) -> reviewing.Answered:
        return reviewing.correction(
            question.about, "Bonn \udcfc", reviewer="J\udcfcrg", at=logs.NOW
        )

    session = reviewing.ask_questions(
        settings.load(), [ReviewQuestion(about, ())], answer, now=lambda: logs.NOW
    )
    assert (session.answered, session.loaded) == (1, 1)


@pytest.mark.slow
def test_a_session_in_a_terminal_ends_as_feedback_that_curation_learns(home: Path) -> None:
    output = session(home, ["x", "g", "c", "", "c", "No: it rains in Bonn and Cork.", "q"])
    assert "people disagree: 1 for, 1 against" in output
    assert "expected g, b, c, s or q" in output
    assert "2 of 3 answered; 2 new rows loaded" in output
    with warehouses.connect(home / "warehouse.duckdb") as con:
        rows = con.execute(
            "select kind, response_id, client_id from raw.feedback where actor_id = 'rev'"
            " order by kind"
        ).fetchall()
        assert [row[0] for row in rows] == ["correction", "thumb"]
        assert rows[1][1:] == ("r-Kyiv", "app")
        assert len(asked(con)) == 1
        answers = con.execute("select answer from curated.examples").fetchall()
        assert any("it rains in Bonn and Cork" in answer for (answer,) in answers)


def test_without_a_terminal_nobody_is_asked_and_the_file_is_named(home: Path) -> None:
    words = ("review", str(home / "weather.yaml"), "--as", "rev")
    done = CliRunner().invoke(review_commands.app, words, env={"FLYWHEEL_HOME": str(home)})
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "no terminal to ask 3 questions at; --export FILE writes them" in done.stderr


def test_a_labelling_tools_file_is_imported_idempotently(home: Path) -> None:
    path = home / "questions.jsonl"
    assert "3 questions written" in run(home, "--export", path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["verdict"] for line in lines] == [None, None, None]
    corrected: Json = {"role": "assistant", "content": "It pours in this town, take two."}
    stolen = lines[1] | {"client_id": "other", "verdict": "good"}
    path.write_text(
        "\n".join(
            json.dumps(line)
            for line in (
                lines[0] | {"verdict": "bad", "comment": "wrong day"},
                lines[1] | {"correction": corrected},
                lines[2],
                lines[2] | {"verdict": "fine"},
                stolen,
            )
        )
        + "\nno json\n"
    )
    output = run(home, "--import", path)
    assert "2 answers, 0 known, 1 unanswered, 3 lines in quarantine" in output
    assert "loaded before" in run(home, "--import", path)
    copy = path.with_name("copy.jsonl")
    copy.write_text(path.read_text() + "\n")
    assert "0 answers, 2 known" in run(home, "--import", copy)
    with warehouses.connect(home / "warehouse.duckdb") as con:
        reasons = con.execute("select reason from raw.quarantine order by all").fetchall()
        assert [reason[:24] for (reason,) in dict.fromkeys(reasons)] == [
            '`verdict` is "fine", exp',
            "the line is not a JSON o",
            "the line's ids match no ",
        ]
        assert asked(con) == [lines[2]["response_id"]]
        answers = con.execute("select answer from curated.examples").fetchall()
        assert any("It pours in this town" in answer for (answer,) in answers)


def environment(home: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("EDITOR", "VISUAL")}
    return plain | {"FLYWHEEL_HOME": str(home), "TERM": "xterm", "COLUMNS": "200"}


def run(home: Path, *arguments: str | Path) -> str:
    words = map(str, ("review", home / "weather.yaml", "--as", "rev", *arguments))
    done = CliRunner().invoke(review_commands.app, list(words), env={"FLYWHEEL_HOME": str(home)})
    assert done.exit_code == 0, done.output
    return done.stdout


def session(home: Path, typed: Sequence[str]) -> str:
    """Type lines into a pseudo-terminal and return its output."""
    master, slave = pty.openpty()
    run = "from flows.cli import review_commands; review_commands.app()"
    process = subprocess.Popen(
        [sys.executable, "-c", run, "review", str(home / "weather.yaml"), "--as", "rev"],
        env=environment(home),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    os.write(master, "".join(f"{question}\n" for question in typed).encode())
    seen = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the command has ended and let go of its terminal
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    assert process.wait() == 0, seen.decode()
    return seen.decode()
