"""What must not change under one version number: prompts, scores, questions and answers.

Each function returns one output, as JSON has it. ``python -m tests.golden.rewrite`` writes those
that changed to the files beside this one, once the number of their version was raised.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from components.chat import chat_templates, dialects, prompt
from components.chat.dialects import Dialect
from components.curate import row_judgement
from components.evaluate import (
    baselines,
    guard_runs,
    guards,
    harness,
    holdout_task,
    lm_eval_tasks,
    score_conditions,
)
from components.evaluate.built_in import (
    memorization,
    preference_accuracy,
    refusal_behaviour,
)
from components.evaluate.settings import EvaluationSettings
from components.extensions.judge import comparisons
from components.schema import AcceptableCall, Answer, Call, Json
from components.scorecard import Sample
from components.store import manifest
from tests.components.evaluate.conftest import build_adapter
from tests.golden import judged
from tests.support import guard_files, holdouts, templates, tiny
from tests.support.holdouts import Case
from tests.support.oracle import Oracle

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Golden:
    """One output: its version as manifests write it, where its number is, and how it is made.

    ``make`` takes a folder to work in and the tiny base.
    """

    version: str
    place: str
    make: Callable[[Path, Path], Any]

    def of_now(self, folder: Path, base: Path) -> dict[str, Any]:
        """Return what the file should hold."""
        output = json.loads(json.dumps(self.make(folder, base), ensure_ascii=False))
        return {"version": self.version, "output": output}


TOOLS: list[dict[str, Json]] = [
    {
        "type": "function",
        "function": {
            "name": "book_table",
            "description": "Book a table\n  in a restaurant.",
            "parameters": {
                "type": "object",
                "properties": {
                    "restaurant": {"type": "string"},
                    "guests": {"type": "integer"},
                    "seating": {"enum": ["inside", "Terrasse, überdacht"]},
                    "dishes": {"type": "array", "items": {"type": "string"}},
                    "note": {"type": ["string", "null"]},
                },
                "required": ["restaurant", "guests"],
            },
        },
    },
    {"type": "function", "function": {"name": "ping"}},
]
BOOKED: dict[str, Json] = {
    "role": "assistant",
    "content": "One moment.",
    "tool_calls": [
        {
            "id": "1",
            "type": "function",
            "function": {
                "name": "book_table",
                "arguments": '{"restaurant": "Zum Löwen", "guests": 4}',
            },
        }
    ],
}
CONVERSATIONS: dict[str, tuple[list[dict[str, Json]], list[dict[str, Json]]]] = {
    "one question": ([{"role": "user", "content": "Is it open?"}], []),
    "tools": ([{"role": "user", "content": "A table for 4."}], TOOLS),
    "all": (
        [
            {"role": "system", "content": "You book tables."},
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "A table"}, {"text": "for 4."}]},
            BOOKED,
            {"role": "tool", "tool_call_id": "1", "content": '{"booked": true}'},
            {"role": "assistant", "content": "Booked: <b>4</b> guests."},
            {"role": "user", "content": 'And "for 5"?'},
        ],
        TOOLS,
    ),
}
ANSWERS = {
    "text": Answer(" No tool fits. "),
    "call": Answer(calls=(Call("book_table", {"restaurant": "Zum Löwen", "guests": 4}),)),
    "both": Answer("Two:", (Call("ping", {}), Call("ping", {"n": {"a": [1.5, None]}}))),
}
READ = (
    "No tool fits.",
    '{"name": "ping", "arguments": {}}',
    '{"name": "ping", "parameters": {}} and more',
    '<think>{</think><tool_call>{"name": "ping", "arguments": {}}</tool_call>',
    "<tool_call>",
    "<think>and on",
    '{"name": "ping", "arguments": {"n": 1',
    '<|python_tag|>{"name": "ping", "parameters": {}}; {"name": "ping", "arguments": {"n": 1}}',
)


def _speaking(base: Path, template: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    return tokenizer


def prompts(_: Path, base: Path) -> Any:
    """Write requests and answers for three chat templates, and read texts in all forms."""
    by_template = {
        "ignores tools": tiny.TEMPLATE,
        "qwen": templates.QWEN,
        "llama": templates.LLAMA3,
    }
    found: dict[str, Any] = {}
    for name, template in by_template.items():
        tokenizer = _speaking(base, template)
        for called, (messages, tools) in CONVERSATIONS.items():
            rendered = chat_templates.render(tokenizer, messages, tools)
            found[f"{name}: {called}"] = [rendered.form, rendered.to_text(tokenizer)]
    forms: tuple[Dialect, ...] = ("written", *dialects.FORMS)
    written = {
        f"{form}: {name}": dialects.write_answer(form, one)
        for form in forms
        for name, one in ANSWERS.items()
    }
    read = {
        f"{form}: {text}": [
            dialects.read_answer(form, text, offers_tools=True).to_json(),
            dialects.answer_problem(form, text),
        ]
        for form in forms
        for text in READ
    }
    return {"prompts": found, "answers": {**written}, "read": {**read}}


def _told(samples: Sequence[Sample], *, prompts: bool = False) -> list[dict[str, Any]]:
    """Return what a scoring says of requests; the words of prompts have a golden of their own."""
    return [
        {
            "example_id": one.example_id,
            "cluster_id": one.cluster_id,
            "request": one.request,
            "output": one.output,
            "reference": one.reference,
            "scores": one.scores,
            "slices": one.slices,
            **({"prompt": one.prompt} if prompts else {}),
        }
        for one in samples
    ]


ROME = Answer(calls=(Call("weather", {"city": "Rome"}),))
CALLS = (
    Case("Weather in Rome?", ROME, logged=ROME),
    Case(
        "Weather in New York?",
        Answer(calls=(Call("weather", {"city": "New York"}),)),
        (AcceptableCall("weather", {"city": ["New York", "NYC"], "unit": ["", "C"]}),),
        logged=Answer("It rains."),
    ),
    Case("Rome and Oslo?", Answer(calls=(*ROME.calls, Call("weather", {"city": "Oslo"})))),
    Case("Write a poem", Answer("No tool fits this."), logged=ROME),
)
SAID = (
    '{"name": "weather", "arguments": {"city": "Rome"}}',
    '{"name": "weather", "arguments": {"city": "nyc", "unit": "C"}}',
    '{"name": "weather", "arguments": {"town": 3}}',
    '{"name": "news", "arguments": {}}',
    '{"name": "weather", "arguments": ',
    "No tool fits this.",
    "",
)
LABELLED = [Case(f"about a {label}", Answer(label)) for label in ("card", "card payment", "loan")]
TEXTS = [Case("How are you?", Answer("Quite well, thank you, and how are you today?"))]


def scoring(folder: Path, base: Path) -> Any:
    """Score every text on every request, for answers of each kind, and production's as logged."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    calls = holdouts.build(folder / "calls", CALLS)
    spoken = pq.read_table(calls / holdout_task.HOLDOUT_FILE)
    languages = pa.array(["en", None, "de", "en"], pa.string())
    pq.write_table(spoken.append_column("language", languages), calls / holdout_task.HOLDOUT_FILE)
    labelled = holdouts.build(folder / "labelled", LABELLED, LABELLED * 4, tools=[])
    texts = holdouts.build(folder / "texts", TEXTS, TEXTS, tools=[])
    found: dict[str, Any] = {}
    for name, snapshot, said in (
        ("tool calls", calls, SAID),
        ("classification", labelled, (" card\n", "A loan.")),
        ("text", texts, ("Quite well", "")),
    ):
        holdout = holdout_task.read_side(snapshot, tokenizer, None)
        for text in said:
            oracle = Oracle(lambda _, text=text: text, lambda _, answer: len(answer) / 100)
            found[f"{name}: {text}"] = _told(
                lm_eval_tasks.evaluate_holdout(oracle, holdout, 8, "<end>")
            )
    holdout = holdout_task.read_side(calls, tokenizer, None)
    production = baselines.read_logged(calls, holdout.answers.kind)
    assert production is not None
    found["production"] = _told(baselines.score_logged(holdout, production, 8))
    few = holdout_task.read_side(labelled, tokenizer, None, num_fewshot=2, room=400)
    found["few-shot"] = _told(
        lm_eval_tasks.evaluate_holdout(Oracle(lambda _: "loan"), few, 8, ""), prompts=True
    )
    return found


def guard_tasks(folder: Path, _: Path) -> Any:
    """Ask guard tasks: choices, written answers through filters, examples, a draw of documents."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = guard_files.documents(
        folder / "shown.jsonl",
        [{"question": "50 + 50", "choices": ["100", "1", "2"], "right": 0}],
    )
    asked = {
        "choice": guard_files.sums(folder),
        "by length": guard_files.sums(folder, metric="acc_norm"),
        "drawn": guard_files.sums(folder, limit=3),
        "few-shot": guard_files.sums(folder, num_fewshot=1, examples=shown),
        "first word": guard_files.written(folder, filter="first-word"),
        "as it is": guard_files.written(folder, filter="as-it-is"),
    }
    oracle = Oracle(lambda text: f"{text[0]} I think", lambda text, said: -len(text + said) % 7)
    return {
        name: _told(guard_runs.run_guard(oracle, guard_runs.build_guard(one)), prompts=True)
        for name, one in asked.items()
    }


def judgements(_: Path, __: Path) -> Any:
    """Judge rows that each rule and each kind of value is found in."""
    return judged.judgements()


def judge(_: Path, __: Path) -> Any:
    """Word a judge's question, and read replies."""
    replies = ("FIRST", " SECOND\n", "TIE", "first", "FIRST.", "")
    return {
        "question": [
            {**one} for one in comparisons.question_messages("Hm?", "Yes </first>", "No\nno")
        ],
        "read": {reply: comparisons.read_verdict(reply) for reply in replies},
    }


class _Greedy(Oracle):
    """Finds some continuations the likeliest, token by token, by their length."""

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        said = [str(cast("tuple[str, str]", request.args)[1]) for request in requests]
        return [(-(sum(map(ord, one)) % 97), sum(map(ord, one)) % 3 == 0) for one in said]


def preferences(folder: Path, base: Path) -> Any:
    """Weigh pairs that are held out."""
    snapshot = holdouts.build(folder)
    pairs = [
        holdouts.pair("p1", "Hm?", Answer("Yes, it is."), Answer("No"), group="talk"),
        holdouts.pair("p2", "And?", Answer("No"), Answer("Ask again."), language=None),
    ]
    holdouts.hold_pairs(snapshot, pairs)
    documents = preference_accuracy.preference_documents(
        snapshot, AutoTokenizer.from_pretrained(base), 2048
    )
    return [*_told(preference_accuracy.run_preferences(_Greedy(), documents), prompts=True)]


def canaries(_: Path, base: Path) -> Any:
    """Rank made-up secrets among their candidates."""
    documents = memorization.canary_documents(AutoTokenizer.from_pretrained(base))[:4]
    return [*_told(memorization.run_canaries(_Greedy(), documents), prompts=True)]


def secrets(folder: Path, base: Path) -> Any:
    """Ask for values that redaction let stay."""
    folder.mkdir(parents=True)
    asked = json.dumps([{"role": "user", "content": "Whom do I write to?"}])
    row = {"messages": asked, "tools": "[]", "group": "g", "client_id": "app", "language": "en"}
    said = ("Write to ann@corp.com today.", "Bo has it: bo@corp.com.", "Nobody.")
    learned = [
        {
            "example_id": f"t{number}",
            **row,
            "answer": Answer(one).to_json(),
            "completion": [{"role": "assistant", "content": one}],
            "secrets": [word.strip(".") for word in one.split() if "@" in word],
        }
        for number, one in enumerate(said)
    ]
    pq.write_table(pa.Table.from_pylist(learned), folder / holdout_task.TRAIN_FILE)
    documents = memorization.secret_documents(folder, AutoTokenizer.from_pretrained(base))
    return [*_told(memorization.run_secrets(_Greedy(), documents), prompts=True)]


def refused(_: Path, base: Path) -> Any:
    """Count refusals among answers, some of which refuse."""
    said = (
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "Gladly. First,",
        "",
    )
    documents = refusal_behaviour.refusal_documents(AutoTokenizer.from_pretrained(base))
    by_prompt = {one["prompt"]: said[at % len(said)] for at, one in enumerate(documents)}
    return [
        *_told(
            refusal_behaviour.run_refusals(Oracle(by_prompt.__getitem__), documents), prompts=True
        )
    ]


ASKED = (
    "<|im_start|>user\nWeather in Rome?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWeather in Oslo?<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time",
)


def answers(folder: Path, base: Path) -> Any:
    """Have the tiny base answer and weigh answers, with an adapter and without."""
    adapter = build_adapter(base, folder / "key-adapter", 0)
    settings = EvaluationSettings(precision="fp32", batch_size=2)
    weighed = [(asked, said) for asked in ASKED for said in (" Yes.", " Yes, indeed")]
    generation = {"until": ["z"], "max_gen_toks": 12, "do_sample": False}
    found: dict[str, Any] = {}
    with harness.load_engine(base, settings, [adapter]) as engine:
        for name, worn in (("base", None), ("adapter", adapter)):
            with (
                engine.use_adapter(worn) as model,
                model.answering(name, lambda _: None) as lm,
            ):
                written = lm.generate_until(
                    [Instance("generate_until", {}, (one, generation), 0) for one in ASKED]
                )
                likely = lm.loglikelihood(
                    [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(weighed)]
                )
            found[name] = {"written": [*written], "likely": [[*one] for one in likely]}
    return found


def _of_engine() -> Mapping[str, Golden]:
    place = "ENGINE_VERSIONS in components/evaluate/score_conditions.py"
    return {"answers": Golden(score_conditions.ENGINE_VERSIONS["transformers"], place, answers)}


def _of_built_in() -> Mapping[str, Golden]:
    place = "BUILT_IN_VERSIONS in components/evaluate/score_conditions.py"
    golden = partial(Golden, place=place)
    return {
        "preferences": golden(score_conditions.BUILT_IN_VERSIONS["preferences"], make=preferences),
        "canaries": golden(score_conditions.BUILT_IN_VERSIONS["canaries"], make=canaries),
        "secrets": golden(score_conditions.BUILT_IN_VERSIONS["secrets"], make=secrets),
        "refusals": golden(score_conditions.BUILT_IN_VERSIONS["refusals"], make=refused),
    }


ALL: Mapping[str, Golden] = {
    "prompts": Golden(prompt.FORMAT, "PROMPT_FORMAT in components/chat/prompt.py", prompts),
    "scoring": Golden(
        holdout_task.VERSION, "VERSION in components/evaluate/holdout_task.py", scoring
    ),
    "guard_tasks": Golden(
        guards.GUARD_VERSION, "VERSION in components/evaluate/guards.py", guard_tasks
    ),
    "judge": Golden(
        comparisons.QUESTION_VERSION, "VERSION in components/extensions/judge/comparisons.py", judge
    ),
    "judgements": Golden(
        str(row_judgement.VERSION),
        "VERSION in components/curate/row_judgement.py",
        judgements,
    ),
    **_of_built_in(),
    **_of_engine(),
}


def kept(name: str) -> dict[str, Any]:
    """Read what a golden file holds."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def write(name: str, content: Mapping[str, Any]) -> None:
    """Write a golden file."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    manifest.write_atomically(FOLDER / f"{name}.json", text)
