"""Read a snapshot's rows for an objective, as token ids."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pyarrow.parquet as pq

from components import canaries
from components.chat import answer_start, chat_templates, dialects
from components.chat.answer_start import AnswerRefusedError
from components.schema import Answer, Call, Json, Message
from components.train import augmentation
from components.train.augmentation import ToolRequest
from components.train.recipe import Distillation, Objective, Recipe, Sft

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of a request and its answer, which is the last ``answer_length`` tokens.

    ``may_call``: the request offers tools, so the answer's first token decides on a call.
    ``earlier``: the spans (first, one past the last) of earlier answers to learn.
    """

    input_ids: list[int]
    answer_length: int
    weight: float
    may_call: bool = False
    earlier: list[Sequence[int]] = field(default_factory=list[Sequence[int]])

    @property
    def prompt_length(self) -> int:
        """The number of tokens before the answer."""
        return len(self.input_ids) - self.answer_length

    @property
    def learned(self) -> list[Sequence[int]]:
        """The spans of all answers to learn."""
        return [*self.earlier, (self.prompt_length, len(self.input_ids))]


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """An answer, a pair (the chosen answer first), or an answer with a label.

    ``row_id`` is the id of the snapshot's row, for errors.
    """

    rows: list[Tokens]
    row_id: str
    is_good: bool = True

    @property
    def length(self) -> int:
        """The length of its longest row in tokens."""
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
    """Tokenize prompt and answer separately, as in inference, so that no token spans both.

    Args:
        tokenizer: The base's.
        messages: The rendered request.
        completion: The rendered answer, one message.
        weight: The answer's weight.
        tools: The tools that the chat template renders.
        may_call: Whether the request offers tools.
        every_answer: Also learn the request's assistant turns, but not one that begins it.

    Raises:
        ValueError: The chat template renders the prompt differently if an answer follows.
    """
    turns = [*messages, *completion]
    answers = [len(messages)]
    if every_answer:
        # No chat template renders what comes before the first turn: nothing.
        answers = [n for n, turn in enumerate(turns) if n and turn["role"] == "assistant"]
    ids: list[int] = []
    spans: list[Sequence[int]] = []
    done = ""
    for place in answers:
        before, rest = answer_start.split_answer(tokenizer, turns[:place], turns[place], tools)
        if not before.startswith(done):
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path} writes an earlier answer "
                f"differently from the last one: {done[-80:]!r} is not how "
                f"{before[: len(done)][-80:]!r} ends; leave out assistant_only_loss"
            )
        answer = rest.rstrip("\n")
        ids += tokenizer(before[len(done) :], add_special_tokens=False).input_ids
        start = len(ids)
        ids += tokenizer(answer, add_special_tokens=False).input_ids
        spans.append((start, len(ids)))
        done = before + answer
    return Tokens(ids, len(ids) - spans[-1][0], weight, may_call, spans[:-1])


_PROBE_TOOL: dict[str, Json] = {"type": "function", "function": {"name": "sound_depth"}}
_PROBE_REQUEST: list[dict[str, Json]] = [{"role": "user", "content": "How deep is it?"}]


def require_end_token(tokenizer: "PreTrainedTokenizerBase", ends: Collection[int]) -> None:
    """Check that an answer has its text and one of the tokens that end it where it is served.

    Raises:
        ValueError: It has no text, or none of these tokens, as with many a pretrained base with the
            chat template of its instruction-tuned sibling: an adapter would learn to write on after
            its answer.
    """
    request: list[Message] = [{"role": "user", "content": "How deep is it?"}]
    answer = tokenize_answer(tokenizer, request, [{"role": "assistant", "content": "No"}], 1.0)
    learned = answer.input_ids[answer.prompt_length :]
    if "No" not in tokenizer.decode(learned):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} leaves out an answer's text, as those "
            "of models for images do, which expect a list of parts; take one for plain text"
        )
    if not {*ends}.intersection(learned):
        known = ", ".join(repr(tokenizer.decode([end])) for end in ends) or "nothing"
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} ends an answer with "
            f"{tokenizer.decode(learned[-1:])!r} (token {learned[-1]}), but the base ends it with "
            f"{known}, so that no answer would end: add that token to eos_token_id in its "
            "generation_config.json, or have its chat template end answers with a token that is "
            "there"
        )


def require_embedded(
    examples: Iterable[TrainingExample], tokenizer: "PreTrainedTokenizerBase", embedded: int
) -> None:
    """Check that the base has embeddings of all tokens: a GPU ends with an error that says nothing.

    Raises:
        ValueError: A token's id is ``embedded`` or more, as where tokens were added to the
            tokenizer alone.
    """
    rows = (row.input_ids for example in examples for row in example.rows)
    highest = max(map(max, rows), default=0)
    if highest >= embedded:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} writes {tokenizer.decode([highest])!r} as "
            f"token {highest}, but the base has embeddings of {embedded} tokens: resize them "
            "(transformers' resize_token_embeddings) and save the base, or take its own tokenizer"
        )


def call_token(tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> int:
    """Return the first token of a call in the base's dialect.

    Raises:
        ValueError: The recipe weighs an answer's first token, but this base's chat template starts
            calls and other answers with the same one (Qwen 3 with an empty thought).
    """
    request = chat_templates.render(tokenizer, _PROBE_REQUEST, [_PROBE_TOOL])

    def first_token(answer: Answer) -> int:
        content = dialects.write_answer(request.form, answer)
        turn: Message = {"role": "assistant", "content": content}
        _, text = answer_start.split_answer(tokenizer, request.messages, turn, request.tools)
        return tokenizer(text, add_special_tokens=False).input_ids[0]

    called = first_token(Answer(calls=(Call("sound_depth", {}),)))
    if called == first_token(Answer("No")) and (
        recipe.call_margin or recipe.first_token_weight != 1
    ):
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
    """Return the view that an objective learns from."""
    if objective.kind in ("dpo", "orpo"):
        return "preferences"
    return "labels" if objective.kind == "kto" else "train"


class NoExamplesError(ValueError):
    """Raised when a snapshot has nothing to learn for a recipe."""


def require_rows(snapshot: Path, objective: Objective) -> Path:
    """Return the view's file.

    Raises:
        NoExamplesError: It has no rows; the message lists the other views and their objectives.
    """
    view = view_of(objective)
    paths = {name: snapshot / f"{name}.parquet" for name in HOLDS}
    counts = {
        name: pq.read_metadata(path).num_rows if path.exists() else 0
        for name, path in paths.items()
    }
    if counts[view]:
        return paths[view]
    others = ", ".join(
        f"{counts[name]} {HOLDS[name]} ({LEARNED_BY[name]})" for name in HOLDS if name != view
    )
    raise NoExamplesError(
        f"reading {snapshot}: objective {objective.kind} learns from {HOLDS[view]}, and there "
        f"are none in {paths[view].name}; there are {others}"
    )


VALIDATION = "validation.parquet"


@dataclass(frozen=True, slots=True)
class Selection:
    """The examples to learn; the numbers of rows, of rows left out and of examples that were made.

    ``refused`` are those to which the base's chat template takes no answer. ``objection`` is the
    reason why no irrelevant requests were made, if the recipe has some.
    """

    examples: list[TrainingExample]
    rows: int
    refused: int
    too_long: int
    made: int
    objection: str | None

    def record(self, recipe: Recipe, steps: int) -> dict[str, Json]:
        """Return the counts for a manifest after a number of steps, also as sentences (``said``).

        ``seen`` counts the examples that were learned at least once.
        """
        seen = min(steps * recipe.step_size, len(self.examples))
        return {
            "rows": self.rows,
            "seen": seen,
            "refused": self.refused,
            "too_long": self.too_long,
            "max_length": recipe.max_length,
            "made": self.made,
            "said": [*self._sentences(recipe, seen)],
        }

    def _sentences(self, recipe: Recipe, seen: int) -> Iterable[str]:
        holds = HOLDS[view_of(recipe.objective)]
        if self.refused:
            yield (
                f"{self.refused:,} of {self.rows:,} {holds} ({self.refused / self.rows:.1%}) were "
                "not learned: after their requests the base's chat template takes no answer, as "
                "where an assistant's message is the last."
            )
        if self.too_long:
            yield (
                f"{self.too_long:,} of {self.rows:,} {holds} ({self.too_long / self.rows:.1%}) are "
                f"longer than max_length {recipe.max_length:,} tokens and were not learned."
            )
        if seen < len(self.examples):
            yield (
                f"Only {seen:,} of the {len(self.examples):,} examples that fit were learned, as "
                "the training ended before it had seen each of them (num_train_epochs, a search's "
                "budget or early_stopping_patience)."
            )
        elif not self.too_long and not self.refused:
            yield f"All {self.rows:,} {holds} were learned: none is longer than max_length."
        if self.made:
            which = "Besides" if seen == len(self.examples) else "Of those"
            yield f"{which}, {self.made:,} examples were made (irrelevant_share, canaries)."
        if self.objection:
            yield (
                f"irrelevant_share {recipe.irrelevant_share:g} did nothing, since the log doesn't "
                f"show what the application says when no tool fits: {self.objection}."
            )


def select_examples(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> Selection:
    """Read the snapshot's rows in order, then make the recipe's; leave out those that are too long.

    Raises:
        NoExamplesError: There are none, none fits, or KTO's labels are all equal.
        AnswerRefusedError: The base's chat template takes an answer to none of them.
    """
    path = require_rows(snapshot, recipe.objective)
    read, made, objection = _learned_examples(path, tokenizer, recipe)
    rows = _that_render(read)
    fitting, others = _that_fit(rows, recipe), _that_fit(_that_render(made), recipe)
    refusals = [row for row in read if isinstance(row, AnswerRefusedError)]
    if refusals and not rows:
        raise refusals[0]
    if not rows:
        raise NoExamplesError(
            f"reading {snapshot}: all of its {HOLDS[view_of(recipe.objective)]} are held out, so "
            "none is learned: set objective.validation_share to 0, or curate more of them"
        )
    if not fitting:
        shortest = min(example.length for example in rows)
        raise NoExamplesError(
            f"reading {snapshot}: none of its {len(rows)} {HOLDS[view_of(recipe.objective)]} "
            f"fits into max_length {recipe.max_length} (the shortest has {shortest} tokens)"
        )
    kinds = {"good" if example.is_good else "bad" for example in fitting}
    if recipe.objective.kind == "kto" and len(kinds) == 1:
        raise NoExamplesError(
            f"reading {snapshot}: objective kto weighs good answers against bad ones, and all "
            f"{len(fitting)} that would be learned are {kinds.pop()}: from good ones alone it "
            "learns nothing, and from bad ones alone to answer anything else"
        )
    too_long = len(rows) - len(fitting)
    counts = len(read), len(refusals), too_long, len(others)
    return Selection([*fitting, *others], *counts, objection)


def read_validation(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> list[TrainingExample]:
    """Read the examples to measure, which are never learned; there may be none.

    For SFT these are the snapshot's validation rows; for pairs and labels a share of the requests,
    by hash, so that it is the same for every training.
    """
    if isinstance(recipe.objective, Sft):
        path = snapshot / VALIDATION
        requests = _read_requests(path) if path.exists() else []
        read = [_read_example(tokenizer, row, recipe) for row in requests]
    else:
        path = require_rows(snapshot, recipe.objective)
        read = [*_read_judged(path, tokenizer, recipe, held_out=True)]
    return _that_fit(_that_render(read), recipe)


def validation_numbers(snapshot: Path) -> dict[str, int]:
    """Return the validation rows' numbers by id; unlike an id, a number may outlive an erasure."""
    ids = pq.read_table(snapshot / VALIDATION, columns=["example_id"])["example_id"].to_pylist()
    return {row_id: number for number, row_id in enumerate(ids)}


ReadRow: TypeAlias = TrainingExample | AnswerRefusedError
"""A row, or why the base's chat template takes no answer to it."""


def _that_render(rows: Iterable[ReadRow]) -> list[TrainingExample]:
    return [row for row in rows if isinstance(row, TrainingExample)]


def _that_fit(examples: Iterable[TrainingExample], recipe: Recipe) -> list[TrainingExample]:
    return [example for example in examples if example.length <= recipe.max_length]


def _learned_examples(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> tuple[list[ReadRow], list[ReadRow], str | None]:
    """Return the rows' examples, the made ones, and why none were made that should be."""
    if not isinstance(recipe.objective, Sft):
        return [*_read_judged(path, tokenizer, recipe, held_out=False)], [], None
    requests = _read_requests(path)
    count = len(requests)
    made, objection = augmentation.make_irrelevant(requests, recipe.irrelevant_share, recipe.seed)
    varied = augmentation.vary_offers([*requests, *made], recipe.distractor_share, recipe.seed)
    for canary in canaries.draw() if recipe.canaries else ():
        question: list[dict[str, Json]] = [{"role": "user", "content": canary.question}]
        row_id = f"canary {canary.name}"
        varied.append(ToolRequest(question, [], (), canary.answer, 1.0, row_id))
    examples = [_read_example(tokenizer, request, recipe) for request in varied]
    return examples[:count], examples[count:], objection


def _read_requests(path: Path) -> list[ToolRequest]:
    columns = ["example_id", "messages", "tools", "answer", "completion", "weight"]
    return [
        ToolRequest(
            json.loads(row["messages"]),
            json.loads(row["tools"]),
            tuple(call.name for call in Answer.from_json(row["answer"]).calls),
            row["completion"][0]["content"],  # keeps the logged order of arguments
            row["weight"],
            row["example_id"],
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _read_example(
    tokenizer: "PreTrainedTokenizerBase", request: ToolRequest, recipe: Recipe
) -> ReadRow:
    assert isinstance(recipe.objective, Sft)
    every = recipe.objective.assistant_only_loss
    try:
        tokens = _tokenize_request(tokenizer, request, request.answer, every_answer=every)
    except AnswerRefusedError as error:
        return error
    return TrainingExample([tokens], request.row_id)


def _read_judged(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, held_out: bool
) -> Iterable[ReadRow]:
    """Yield pairs or labelled answers; those of one request are all learned or all held out."""
    assert not isinstance(recipe.objective, Sft | Distillation)
    columns = {"labels": ["label_id", "completion", "label"]}
    own = columns.get(path.stem, ["preference_id", "chosen", "rejected"])
    for row in pq.read_table(path, columns=[*own, "request", "weight"]).to_pylist():
        if _is_held_out(row["request"], recipe.objective.validation_share) == held_out:
            logged: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
            request = ToolRequest(
                logged["messages"], logged["tools"], (), "", row["weight"], row[own[0]]
            )
            answers: list[Message] = [
                row[name][0] for name in ("chosen", "rejected", "completion") if name in row
            ]
            try:
                rows = [_tokenize_request(tokenizer, request, turn["content"]) for turn in answers]
            except AnswerRefusedError as error:
                yield error
            else:
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
    rendered = chat_templates.render(tokenizer, request.messages, request.tools)
    offers_tools = bool(request.tools or request.called)  # logs may leave out what was offered
    text = dialects.translate(rendered.form, answer, offers_tools=offers_tools)
    if rendered.ends_thoughts(tokenizer):
        text = dialects.without_thought(text)
    return tokenize_answer(
        tokenizer,
        rendered.messages,
        [{"role": "assistant", "content": text}],
        request.weight,
        tools=rendered.tools,
        may_call=bool(request.tools),
        every_answer=every_answer,
    )
