"""``flywheel init`` as a person types it: from logs to a workload file that works."""

import json
import re
from pathlib import Path
from random import Random

import pytest
import yaml
from typer.testing import CliRunner, Result

from components.schema import Json
from flows import workload_file
from flows.cli import main, workload_draft
from tests.support import logs, tiny

LICENSE = Path(__file__).parents[3] / "LICENSE"
WORDS = sorted(set(re.findall("[a-z]{4,}", LICENSE.read_text())))  # English enough
LABELS = ("refund", "invoice", "delivery")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main.app, list(map(str, arguments)))


def calls(count: int, *also: str) -> list[dict[str, Json]]:
    """Write requests that call a tool of many; every fifth is answered in words.

    ``also`` are tools that every request offers.
    """
    return [
        logs.interaction(
            f"Will the weather {' '.join(Random(n).sample(WORDS, 12))}?",
            message=logs.call(f"weather_{n % 40}", {}) if n % 5 else logs.say("I can't tell."),
            tools=[logs.tool(name) for name in (f"weather_{n % 40}", *also)],
            response_id=f"r{n}",
            timestamp=1_760_000_000 + n * 3600,
        )
        for n in range(count)
    ]


def labels(count: int, workload: str) -> list[dict[str, Json]]:
    return [
        logs.interaction(
            f"Meine Bestellung Nummer {n} ist leider immer noch nicht angekommen, was nun?",
            message=logs.say(LABELS[n % 3]),
            response_id=f"l{n}",
            workload_id=workload,
        )
        for n in range(count)
    ]


def comments(path: str) -> str:
    """Read a workload file with its wrapped comments as one line each."""
    return re.sub(r"\n *# ", " ", Path(path).read_text())


@pytest.mark.slow
def test_the_file_of_a_tool_calling_log_passes_check_and_can_be_collected_and_curated():
    tiny.build(Path("models/tiny"))
    logs.write(Path("logs/a.jsonl.gz"), calls(500))
    votes = [logs.feedback(response_id=f"r{n}") for n in range(8)]
    lost = [logs.feedback("rating", 4, scale=[1, 5], response_id=f"x{n}") for n in range(4)]
    logs.write(Path("votes.jsonl"), [*votes, *lost])
    ended = run("init", "logs", "votes.jsonl")
    assert ended.exit_code == 0, ended.output
    assert ended.output.splitlines() == [
        "wrote weather.yaml: workload weather, 500 interactions of 2025-10-09 to 2025-10-30, "
        "tool_calls, 12 feedback events, base models/tiny",
        "next: flywheel collect weather.yaml",
        "      flywheel curate weather.yaml",
    ]
    text = comments("weather.yaml")
    assert "8 thumb: 100 % join a logged response" in text
    assert "4 rating: 0 % join a logged response" in text
    assert "100 % of the requests offer tools, 40 different sets of them" in text
    assert "Languages of the requests: en 100 %" in text
    assert "counted with the base's tokenizer" in text
    read = workload_file.read_workload(Path("weather.yaml"))
    assert (read.evaluate.kind, read.gate.metric, read.curate.split_by) == (
        "tool_calls",
        "correct_name",
        "tools",
    )
    assert read.gate.abstention_margin == 0.1
    written = yaml.safe_load(Path("weather.yaml").read_text())
    assert written["sources"] == {"logs": ["logs"], "feedback": ["votes.jsonl"]}
    assert run("check", "weather.yaml").exit_code == 0
    collected = run("collect", "weather.yaml")
    assert "512 new rows from 2 new of 2 files, 0 lines in quarantine" in collected.output
    curated = run("curate", "weather.yaml")
    assert curated.exit_code == 0, curated.output
    assert "snapshot" in curated.output


def test_records_without_a_workload_get_the_name_of_their_place_and_refused_ones_a_reason():
    rows = [logs.without(line, "workload_id", "client_id") for line in calls(300)]
    failed: dict[str, Json] = {
        "request": rows[0]["request"],
        "response": {"error": {"message": "overloaded"}},
    }
    path = logs.write(Path("logs/Support Chat.jsonl"), [*rows, failed, failed])
    ended = run("init", path)
    assert ended.exit_code == 0, ended.output
    assert ended.output.splitlines()[:2] == [
        "  2 lines: `response.error` is an object, expected a response with `choices`",
        f"      example: {path}:301: {json.dumps(failed)[:160]} ...",
    ]
    written = yaml.safe_load(Path("support-chat.yaml").read_text())
    assert written["workload"] == "support-chat"
    assert written["sources"]["logs"] == [
        {"path": "logs/Support Chat.jsonl", "workload_id": "support-chat"}
    ]
    assert not Path("home").exists()  # the first command that writes to it closes it to others


@pytest.mark.parametrize(
    ("requests", "share"),
    [(20, 0.2), (200, 0.4), (25_000, 0.2), (26_000, 0.19), (4_000_000, 0.0013)],
)
def test_as_many_are_held_out_as_the_gate_requires_and_no_more_than_can_be_evaluated_each_time(
    requests: int, share: float
):
    assert workload_draft.holdout_share(requests) == share


@pytest.mark.slow
def test_the_file_of_a_large_log_says_why_little_is_held_out():
    tiny.build(Path("models/tiny"))
    line = logs.interaction("Where is it?", message=logs.say("Here."), response_id="r")
    text = json.dumps(line)
    Path("logs/a.jsonl").write_text(
        "".join(text.replace('"r"', f'"r{n}"') + "\n" for n in range(30_000))
    )
    assert run("init", "logs").exit_code == 0
    rules = workload_file.read_workload(Path("weather.yaml")).curate
    assert rules.holdout_share == 0.17
    assert rules.validation_share == 0.085
    assert "About 5100 requests will be held out" in comments("weather.yaml")


def test_a_tool_that_most_requests_offer_is_not_held_out():
    tiny.build(Path("models/tiny"))
    lines = calls(200, "calendar")
    logs.write(Path("logs/a.jsonl"), lines)
    assert run("init", "logs").exit_code == 0
    assert workload_file.read_workload(Path("weather.yaml")).curate.split_by == "conversation"
    assert "the most frequent tool is in 100 % of these" in comments("weather.yaml")


def test_without_a_base_the_file_names_one_that_fits_and_how_to_download_it():
    logs.write(Path("logs/a.jsonl"), calls(20))
    ended = run("init", "logs/a.jsonl")
    assert ended.exit_code == 0, ended.output
    written = yaml.safe_load(Path("weather.yaml").read_text())
    output = ended.output.splitlines()
    download = f"hf download Qwen/{Path(written['base']).name} --local-dir {written['base']}"
    assert f"  missing: no base: {download}" in output
    assert output[-2:] == [f"next: {download}", "      flywheel check weather.yaml"]
    assert "  missing: too few requests: about 4 of 20 will be held out" in ended.output
    assert "  missing: no feedback" in ended.output
    assert "estimated, 4 bytes a token" in comments("weather.yaml")
    tiny.build(Path(written["base"]))
    assert run("check", "weather.yaml").exit_code == 0


def test_each_workload_gets_a_file_of_its_own_from_the_files_that_hold_it():
    tiny.build(Path("models/tiny"))
    logs.write(Path("logs/calls.jsonl"), calls(50))
    logs.write(Path("logs/labels.jsonl"), [*labels(60, "post"), *labels(2, "No Name")])
    votes = [
        logs.feedback(response_id="l1", workload_id="post", client_id="web"),
        logs.feedback(response_id="l2", workload_id="before it was renamed"),
    ]
    logs.write(Path("logs/votes.jsonl"), votes)
    Path("logs/notes.txt").write_text("nothing to load\n")
    refused = run("init", "logs", "--to", "one.yaml")
    assert refused.exit_code == 2
    assert "there are several workloads: post (60), weather (50), No Name (2)" in refused.output
    ended = run("init", "logs")
    assert ended.exit_code == 0, ended.output
    assert "  1 lines: the line is not JSON" in ended.output
    assert "workload 'No Name' (2 interactions) can't name a model" in ended.output
    post = comments("post.yaml")
    assert yaml.safe_load(Path("post.yaml").read_text())["sources"] == {
        "logs": ["logs/labels.jsonl"],
        "feedback": ["logs/votes.jsonl"],
    }
    expected = "2 thumb: 0 % join a logged response, 2 only one of another client_id or workload_id"
    assert expected in post
    assert "The answers are 3 labels: 'delivery', 'invoice', 'refund'." in post
    assert "Languages of the requests: de 100 %" in post
    expected = "2 would join if their workload_id and client_id were those of the response"
    assert expected in " ".join(ended.output.split())
    assert workload_file.read_workload(Path("post.yaml")).gate.metric == "label"
    weather = yaml.safe_load(Path("weather.yaml").read_text())
    assert weather["sources"] == {"logs": ["logs/calls.jsonl"]}


def test_an_existing_file_is_kept_unless_force_is_given():
    tiny.build(Path("models/tiny"))
    logs.write(Path("logs/a.jsonl"), calls(30))
    Path("weather.yaml").write_text("mine")
    refused = run("init", "logs")
    assert refused.exit_code == 2
    assert "weather.yaml exists; --force overwrites it, --to names another file" in refused.output
    assert Path("weather.yaml").read_text() == "mine"
    Path("conf").mkdir()
    assert run("init", "logs", "--to", "conf/w.yaml").exit_code == 0
    assert yaml.safe_load(Path("conf/w.yaml").read_text())["sources"] == {"logs": ["../logs"]}
    assert run("init", "logs", "--force").exit_code == 0
    assert workload_file.read_workload(Path("weather.yaml")).workload == "weather"


def test_where_one_file_of_several_exists_none_is_written():
    tiny.build(Path("models/tiny"))
    logs.write(Path("logs/a.jsonl"), [*calls(30), *labels(60, "post")])
    Path("weather.yaml").write_text("mine")
    refused = run("init", "logs")
    assert refused.exit_code == 2
    assert refused.output.startswith("weather.yaml exists; --force overwrites it")
    assert not Path("post.yaml").exists()
    assert run("init", "logs", "--workload", "post").exit_code == 0


@pytest.mark.parametrize(
    ("form", "share"),
    [
        pytest.param({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}, 100),
        pytest.param({"type": "json_object"}, 100, id="json-mode"),
        pytest.param(None, 0, id="by-its-answers"),
    ],
)
def test_json_answers_are_drafted_by_their_fields(form: Json, share: int):
    tiny.build(Path("models/tiny"))
    rows = [
        logs.interaction(
            f"{' '.join(Random(n).sample(WORDS, 12))}?",
            message=logs.say(json.dumps({"topic": LABELS[n % 3], "urgent": n % 9 == 0})),
            response_id=f"r{n}",
            workload_id="post",
        )
        for n in range(400)
    ]
    for row in rows:
        request = row["request"]
        assert isinstance(request, dict)
        if form:
            request["response_format"] = form
    logs.write(Path("logs/a.jsonl"), rows)
    assert run("init", "logs").exit_code == 0
    read = workload_file.read_workload(Path("post.yaml"))
    assert (read.evaluate.kind, read.gate.metric, read.gate.floor) == ("json", "exact", 0.3)
    assert (f"{share} % of the requests ask for" in comments("post.yaml")) == bool(share)
    assert run("check", "post.yaml").exit_code == 0


def test_hundreds_of_labels_are_a_classification():
    tiny.build(Path("models/tiny"))
    rows = [
        logs.interaction(
            f"{' '.join(Random(n).sample(WORDS, 12))}?",
            message=logs.say(f"intent_{n % 150}"),
            response_id=f"r{n}",
            workload_id="post",
        )
        for n in range(900)
    ]
    logs.write(Path("logs/a.jsonl"), rows)
    ended = run("init", "logs")
    assert "classification (150 labels)" in ended.output
    read = workload_file.read_workload(Path("post.yaml"))
    assert (read.evaluate.kind, read.gate.metric) == ("classification", "label")


def test_of_very_many_workloads_the_largest_are_named_and_none_gets_a_file():
    records = [record for n in range(30) for record in labels(30 - n, f"w{n}")]
    logs.write(Path("logs/a.jsonl"), records)
    for options in ([], ["--workload", "w99"]):
        refused = run("init", "logs", *options)
        assert refused.exit_code == 2
        named = " ".join(refused.output.split())
        assert "w0 (30), w1 (29)" in named
        assert "w19 (11) and 10 more" in named
    assert not list(Path().glob("*.yaml"))


def test_languages_of_hardly_any_request_are_not_listed():
    tiny.build(Path("models/tiny"))
    text = "Good morning, I would like to know when my order will finally arrive at our house."
    english = logs.interaction(text, message=logs.say(LABELS[0]), workload_id="post")
    logs.write(Path("logs/a.jsonl"), [*labels(299, "post"), english])
    assert run("init", "logs").exit_code == 0
    assert "Languages of the requests: de 100 % (of 100 % whose language" in comments("post.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param('{"x": 1}\n', "no interaction can be loaded", id="unknown-form"),
        pytest.param("", "looking at logs: there is not a single line in it", id="empty"),
    ],
)
def test_logs_that_can_not_be_loaded_end_with_2_and_write_nothing(content: str, message: str):
    Path("logs/a.jsonl").write_text(content)
    ended = run("init", "logs")
    assert ended.exit_code == 2
    assert message in ended.output
    assert not list(Path().glob("*.yaml"))
    assert ("missing keys: timestamp" in ended.output) == bool(content)


def test_what_logs_say_can_not_leave_its_comment():
    tiny.build(Path("models/tiny"))
    labels = ("yes\n  base: /etc", "no # {{ 1/0 }}", "'maybe': [")
    rows = [
        logs.interaction(f"question {n}", message=logs.say(labels[n % 3]), response_id=f"r{n}")
        for n in range(60)
    ]
    logs.write(Path("logs/a: b #.jsonl"), rows)
    ended = run("init", "logs/a: b #.jsonl")
    assert ended.exit_code == 0, ended.output
    assert workload_file.read_workload(Path("weather.yaml")).base == Path("models/tiny").resolve()
