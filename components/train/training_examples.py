"""Read a snapshot's rows for an objective, as token ids."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pyarrow.parquet as pq

from components import canaries
from components.canaries import Canary
from components.chat import chat_templates, dialects, prompt
from components.schema import Answer, Call, Json, Message
from components.train import augmentation
from components.train.augmentation import ToolRequest
from components.train.recipe import Distillation, Objective, Recipe, Sft

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Tokens:
    """One request and answer as token ids; the last ``answer_length`` of them are what is learned.

    ``may_call``: the request offers tools, so that the answer's first token decides on a call.
    ``earlier`` are the places, first and one past the last, of earlier answers to learn.
    """

    input_ids: list[int]
    answer_length: int
    weight: float
    may_call: bool = False
    earlier: list[Sequence[int]] = field(default_factory=list[Sequence[int]])

    @property
    def prompt_length(self) -> int:
        """The tokens before the answer."""
        return len(self.input_ids) - self.answer_length

    @property
    def learned(self) -> list[Sequence[int]]:
        """The places of all answers to learn."""
        return [*self.earlier, (self.prompt_length, len(self.input_ids))]


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """An answer; the chosen and the rejected answer of a pair; or an answer with a label.

    ``row_id`` is that of the snapshot's row, which errors name.
    """

    rows: list[Tokens]
    row_id: str
    is_good: bool = True

    @property
    def length(self) -> int:
        """The tokens of its longest row."""
        return max(len(row.input_ids) for row in self.rows)


def tokenize_answer(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    completion: Sequence[Message],
    weight: float,
    *,
    tools: Sequence[Mapping[str, Json]] = (),
    may_call: bool = False,
    every_answer: bool = False,
) -> Tokens:
    """Tokenize prompt and answer apart, as they are when the model answers: nothing merges.

    Args:
        tokenizer: The base's.
        messages: The request as rendered.
        completion: The answer as rendered, one message.
        weight: How much the answer counts.
        tools: Those that the chat template itself writes.
        may_call: The request offers tools.
        every_answer: Learn the request's own assistant turns as well.

    Raises:
        ValueError: The chat template writes the prompt differently once an answer follows.
    """
    turns = [*messages, *completion]
    answers = [len(messages)]
    if every_answer:
        answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    ids: list[int] = []
    places: list[Sequence[int]] = []
    written = ""
    for place in answers:
        before = prompt.to_text(tokenizer, turns[:place], tools)
        whole = prompt.to_text(tokenizer, turns[: place + 1], tools, answered=True)
        for text, longer in ((written, before), (before, whole)):
            if not longer.startswith(text):
                raise ValueError(
                    f"the chat template of {tokenizer.name_or_path} rewrites the prompt when an "
                    f"answer follows: {text[-80:]!r} is not how {longer[: len(text)][-80:]!r} ends"
                )
        answer = whole[len(before) :].rstrip("\n")
        ids += tokenizer(before[len(written) :], add_special_tokens=False).input_ids
        start = len(ids)
        ids += tokenizer(answer, add_special_tokens=False).input_ids
        places.append((start, len(ids)))
        written = before + answer
    return Tokens(ids, len(ids) - places[-1][0], weight, may_call, places[:-1])


_PROBE_TOOL: dict[str, Json] = {"type": "function", "function": {"name": "sound_depth"}}
_PROBE_REQUEST: list[dict[str, Json]] = [{"role": "user", "content": "How deep is it?"}]


def call_token(tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> int:
    """Give the token that a call begins with, in the form that the base's calls have.

    Raises:
        ValueError: The recipe weighs an answer's first token, and this base's chat template begins
            calls and other answers alike (Qwen 3 with an empty thought), so it decides nothing.
    """
    asked = chat_templates.render(tokenizer, _PROBE_REQUEST, [_PROBE_TOOL])
    before = asked.to_text(tokenizer)

    def first_token(answer: Answer) -> int:
        content = dialects.write_answer(asked.form, answer)
        turns: list[Message] = [*asked.messages, {"role": "assistant", "content": content}]
        whole = prompt.to_text(tokenizer, turns, asked.tools, answered=True)
        return tokenizer(whole[len(before) :], add_special_tokens=False).input_ids[0]

    called = first_token(Answer(calls=(Call("sound_depth", {}),)))
    refused = first_token(Answer("No"))
    if called == refused and (recipe.call_margin or recipe.first_token_weight != 1):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} begins every answer with "
            f"{tokenizer.decode([called])!r}, so its first token decides nothing; leave out "
            "call_margin and first_token_weight"
        )
    return called


View: TypeAlias = Literal["train", "preferences", "labels"]

HOLDS: dict[View, str] = {
    "train": "examples to answer",
    "preferences": "pairs of a chosen and a rejected answer",
    "labels": "answers labelled good or bad",
}

LEARNED_BY: dict[View, str] = {"train": "sft", "preferences": "dpo or orpo", "labels": "kto"}


def view_of(objective: Objective) -> View:
    """Name the view that an objective learns from."""
    if objective.kind in ("dpo", "orpo"):
        return "preferences"
    return "labels" if objective.kind == "kto" else "train"


def require_rows(snapshot: Path, objective: Objective) -> Path:
    """Give the view's file.

    Raises:
        ValueError: It has no rows; the message says which views have some, and who learns them.
    """
    wanted = view_of(objective)
    path = _view_path(snapshot, wanted)
    if _row_count(path):
        return path
    others = ", ".join(
        f"{_row_count(_view_path(snapshot, view))} {HOLDS[view]} ({LEARNED_BY[view]})"
        for view in HOLDS
        if view != wanted
    )
    raise ValueError(
        f"reading {snapshot}: objective {objective.kind} learns from {HOLDS[wanted]}, and there "
        f"are none in {path.name}; there are {others}"
    )


def _view_path(snapshot: Path, view: View) -> Path:
    return snapshot / f"{view}.parquet"


def _row_count(path: Path) -> int:
    return pq.read_metadata(path).num_rows if path.exists() else 0


VALIDATION = "validation.parquet"


@dataclass(frozen=True, slots=True)
class Selection:
    """The examples to learn, and what became of the snapshot's rows.

    ``rows`` counts those of the snapshot, ``too_long`` those left out, ``made`` the examples added
    by the recipe. ``objection`` is the reason why no irrelevant requests were made, if the recipe
    asks for some.
    """

    examples: list[TrainingExample]
    rows: int
    too_long: int
    made: int
    objection: str | None

    def record(self, recipe: Recipe) -> dict[str, Json]:
        """Return the counts for a manifest, and ``said``, the same in sentences."""
        return {
            "rows": self.rows,
            "too_long": self.too_long,
            "max_length": recipe.max_length,
            "made": self.made,
            "said": [*self._sentences(recipe)],
        }

    def _sentences(self, recipe: Recipe) -> Iterable[str]:
        holds = HOLDS[view_of(recipe.objective)]
        if self.too_long:
            yield (
                f"{self.too_long:,} of {self.rows:,} {holds} ({self.too_long / self.rows:.1%}) are "
                f"longer than max_length {recipe.max_length:,} tokens and were not learned."
            )
        else:
            yield f"All {self.rows:,} {holds} were learned: none is longer than max_length."
        if self.made:
            yield f"Besides, {self.made:,} examples were made (irrelevant_share, canaries)."
        if self.objection:
            yield (
                f"irrelevant_share {recipe.irrelevant_share:g} did nothing, since the log doesn't "
                f"show what the application says when no tool fits: {self.objection}."
            )


def read_examples(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> list[TrainingExample]:
    """Read what is learned; see ``select``."""
    return select_examples(snapshot, tokenizer, recipe).examples


def select_examples(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> Selection:
    """Read what is learned: the snapshot's rows in its order, then those that the recipe makes.

    Those that are too long are left out.

    Raises:
        ValueError: There are none, or none fits.
    """
    path = require_rows(snapshot, recipe.objective)
    rows, made, objection = _learned_examples(path, tokenizer, recipe)
    fitting, others = _that_fit(rows, recipe), _that_fit(made, recipe)
    if not fitting:
        shortest = min((example.length for example in rows), default=0)
        raise ValueError(
            f"reading {snapshot}: none of its {len(rows)} {HOLDS[view_of(recipe.objective)]} "
            f"fits into max_length {recipe.max_length} (the shortest has {shortest} tokens)"
        )
    too_long = len(rows) - len(fitting)
    return Selection([*fitting, *others], len(rows), too_long, len(others), objection)


def read_validation(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> list[TrainingExample]:
    """Read what is measured and never learned; there may be none.

    Of examples it is what curation put aside, as it was logged; of judgements a share of the
    requests they are about, by hash, so that it is the same for every training.
    """
    if isinstance(recipe.objective, Sft):
        path = snapshot / VALIDATION
        requests = _read_requests(path) if path.exists() else []
        return _that_fit([_read_example(tokenizer, one, recipe) for one in requests], recipe)
    path = require_rows(snapshot, recipe.objective)
    return _that_fit(_read_judged(path, tokenizer, recipe, held_out=True), recipe)


def validation_numbers(snapshot: Path) -> dict[str, int]:
    """Number the validation rows by their ids: a number outlives an erasure of the row."""
    found = pq.read_table(snapshot / VALIDATION, columns=["example_id"])["example_id"].to_pylist()
    return {row_id: number for number, row_id in enumerate(found)}


def _that_fit(examples: Iterable[TrainingExample], recipe: Recipe) -> list[TrainingExample]:
    return [example for example in examples if example.length <= recipe.max_length]


def _learned_examples(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> tuple[list[TrainingExample], list[TrainingExample], str | None]:
    """Give the rows' examples, those that are made, and why some that are wanted are not."""
    if not isinstance(recipe.objective, Sft):
        return [*_read_judged(path, tokenizer, recipe, held_out=False)], [], None
    requests = _read_requests(path)
    count = len(requests)
    made, objection = augmentation.make_irrelevant(requests, recipe.irrelevant_share, recipe.seed)
    varied = augmentation.vary_offers([*requests, *made], recipe.distractor_share, recipe.seed)
    planted = [_canary_row(one) for one in canaries.draw()] if recipe.canaries else []
    examples = [_read_example(tokenizer, one, recipe) for one in [*varied, *planted]]
    return examples[:count], examples[count:], objection


def _canary_row(canary: Canary) -> ToolRequest:
    """Make a row that has a canary's secret in its answer."""
    asked: list[dict[str, Json]] = [{"role": "user", "content": canary.question}]
    return ToolRequest(asked, [], (), canary.answer, 1.0, f"canary {canary.name}")


def _read_requests(path: Path) -> list[ToolRequest]:
    columns = ["example_id", "messages", "tools", "answer", "completion", "weight"]
    return [
        ToolRequest(
            json.loads(row["messages"]),
            json.loads(row["tools"]),
            tuple(call.name for call in Answer.from_json(row["answer"]).calls),
            row["completion"][0]["content"],  # its arguments are in the order they came in
            row["weight"],
            row["example_id"],
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _read_example(
    tokenizer: "PreTrainedTokenizerBase", request: ToolRequest, recipe: Recipe
) -> TrainingExample:
    assert isinstance(recipe.objective, Sft)
    every = recipe.objective.assistant_only_loss
    tokens = _tokenize_request(tokenizer, request, request.answer, every_answer=every)
    return TrainingExample([tokens], request.row_id)


def _read_judged(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, held_out: bool
) -> Iterable[TrainingExample]:
    """Read pairs or labelled answers; those about one request are all learned, or none is."""
    assert not isinstance(recipe.objective, Sft | Distillation)
    columns = {"labels": ["label_id", "completion", "label"]}
    own = columns.get(path.stem, ["preference_id", "chosen", "rejected"])
    for row in pq.read_table(path, columns=[*own, "request", "weight"]).to_pylist():
        if _is_held_out(row["request"], recipe.objective.validation_share) == held_out:
            given: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
            request = ToolRequest(
                given["messages"], given["tools"], (), "", row["weight"], row[own[0]]
            )
            said: list[Message] = [
                row[name][0] for name in ("chosen", "rejected", "completion") if name in row
            ]
            rows = [_tokenize_request(tokenizer, request, one["content"]) for one in said]
            yield TrainingExample(rows, request.row_id, row.get("label", True))


def _is_held_out(request: str, share: float) -> bool:
    digest = hashlib.sha256(request.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _tokenize_request(
    tokenizer: "PreTrainedTokenizerBase",
    request: ToolRequest,
    answer: str,
    *,
    every_answer: bool = False,
) -> Tokens:
    asked = chat_templates.render(tokenizer, request.messages, request.tools)
    said = dialects.translate(asked.form, answer)
    completion: Message = {"role": "assistant", "content": said}
    return tokenize_answer(
        tokenizer,
        asked.messages,
        [completion],
        request.weight,
        tools=asked.tools,
        may_call=bool(request.tools),
        every_answer=every_answer,
    )
