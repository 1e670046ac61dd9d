"""Read what a snapshot has for an objective, as lessons in tokens."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from components import canaries, native, rendering
from components.canaries import Canary
from components.schema import Answer, Json, Message
from components.train import irrelevant, offers
from components.train.lessons import Lesson, Tokens, tokenize
from components.train.objectives import view
from components.train.objectives.settings import Distillation, Sft
from components.train.offers import Request
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VALIDATION = "validation.parquet"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is learned, and what became of the snapshot's ``rows``: so many are ``too_long``.

    ``made`` counts the lessons that were made of them; ``objection`` says why requests that no tool
    fits were not made, if they were wanted.
    """

    lessons: list[Lesson]
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
        holds = view.HOLDS[view.of(recipe.objective)]
        if self.too_long:
            yield (
                f"{self.too_long:,} of {self.rows:,} {holds} ({self.too_long / self.rows:.1%}) are "
                f"longer than max_length {recipe.max_length:,} tokens and were not learned."
            )
        else:
            yield f"All {self.rows:,} {holds} were learned: none is longer than max_length."
        if self.made:
            yield f"Besides, {self.made:,} lessons were made (irrelevant_share, canaries)."
        if self.objection:
            yield (
                f"irrelevant_share {recipe.irrelevant_share:g} did nothing, since the log doesn't "
                f"show what the application says when no tool fits: {self.objection}."
            )


def read(snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> list[Lesson]:
    """Read what is learned; see ``select``."""
    return select(snapshot, tokenizer, recipe).lessons


def select(snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> Selection:
    """Read what is learned: the snapshot's rows in its order, then those that the recipe makes.

    Those that are too long are left out.

    Raises:
        ValueError: There are none, or none fits.
    """
    path = view.require_rows(snapshot, recipe.objective)
    rows, made, objection = _learned(path, tokenizer, recipe)
    fitting, others = _fitting(rows, recipe), _fitting(made, recipe)
    if not fitting:
        shortest = min((lesson.length for lesson in rows), default=0)
        raise ValueError(
            f"reading {snapshot}: none of its {len(rows)} {view.HOLDS[view.of(recipe.objective)]} "
            f"fits into max_length {recipe.max_length} (the shortest has {shortest} tokens)"
        )
    too_long = len(rows) - len(fitting)
    return Selection([*fitting, *others], len(rows), too_long, len(others), objection)


def read_validation(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> list[Lesson]:
    """Read what is measured and never learned; there may be none.

    Of examples it is what curation put aside, as it was logged; of judgements a share of the
    requests they are about, by hash, so that it is the same for every training.
    """
    if isinstance(recipe.objective, Sft):
        path = snapshot / VALIDATION
        requests = _requests(path) if path.exists() else []
        return _fitting([_example(tokenizer, one, recipe) for one in requests], recipe)
    path = view.require_rows(snapshot, recipe.objective)
    return _fitting(_judged(path, tokenizer, recipe, held_out=True), recipe)


def validation_numbers(snapshot: Path) -> dict[str, int]:
    """Number the validation rows by their ids: a number outlives an erasure of the row."""
    found = pq.read_table(snapshot / VALIDATION, columns=["example_id"])["example_id"].to_pylist()
    return {row_id: number for number, row_id in enumerate(found)}


def _fitting(lessons: Iterable[Lesson], recipe: Recipe) -> list[Lesson]:
    return [lesson for lesson in lessons if lesson.length <= recipe.max_length]


def _learned(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe
) -> tuple[list[Lesson], list[Lesson], str | None]:
    """Give the rows' lessons, those that are made, and why some that are wanted are not."""
    if not isinstance(recipe.objective, Sft):
        return [*_judged(path, tokenizer, recipe, held_out=False)], [], None
    requests = _requests(path)
    count = len(requests)
    made, objection = irrelevant.make(requests, recipe.irrelevant_share, recipe.seed)
    varied = offers.vary([*requests, *made], recipe.distractor_share, recipe.seed)
    planted = [_planted(one) for one in canaries.draw()] if recipe.canaries else []
    lessons = [_example(tokenizer, one, recipe) for one in [*varied, *planted]]
    return lessons[:count], lessons[count:], objection


def _planted(canary: Canary) -> Request:
    """Make a row that has a canary's secret in its answer."""
    asked: list[dict[str, Json]] = [{"role": "user", "content": canary.question}]
    return Request(asked, [], (), canary.answer, 1.0, f"canary {canary.name}")


def _requests(path: Path) -> list[Request]:
    columns = ["example_id", "messages", "tools", "answer", "completion", "weight"]
    return [
        Request(
            json.loads(row["messages"]),
            json.loads(row["tools"]),
            tuple(call.name for call in Answer.from_json(row["answer"]).calls),
            row["completion"][0]["content"],  # its arguments are in the order they came in
            row["weight"],
            row["example_id"],
        )
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]


def _example(tokenizer: "PreTrainedTokenizerBase", request: Request, recipe: Recipe) -> Lesson:
    assert isinstance(recipe.objective, Sft)
    every = recipe.objective.assistant_only_loss
    tokens = _tokens(tokenizer, request, request.answer, every_answer=every)
    return Lesson([tokens], request.row_id)


def _judged(
    path: Path, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, *, held_out: bool
) -> Iterable[Lesson]:
    """Read pairs or labelled answers; those about one request are all learned, or none is."""
    assert not isinstance(recipe.objective, Sft | Distillation)
    columns = {"labels": ["label_id", "completion", "label"]}
    own = columns.get(path.stem, ["preference_id", "chosen", "rejected"])
    for row in pq.read_table(path, columns=[*own, "request", "weight"]).to_pylist():
        if _is_held_out(row["request"], recipe.objective.validation_share) == held_out:
            given: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
            request = Request(given["messages"], given["tools"], (), "", row["weight"], row[own[0]])
            said: list[Message] = [
                row[name][0] for name in ("chosen", "rejected", "completion") if name in row
            ]
            rows = [_tokens(tokenizer, request, one["content"]) for one in said]
            yield Lesson(rows, request.row_id, row.get("label", True))


def _is_held_out(request: str, share: float) -> bool:
    digest = hashlib.sha256(request.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _tokens(
    tokenizer: "PreTrainedTokenizerBase",
    request: Request,
    answer: str,
    *,
    every_answer: bool = False,
) -> Tokens:
    asked = rendering.render(tokenizer, request.messages, request.tools)
    said = native.translate(asked.form, answer)
    completion: Message = {"role": "assistant", "content": said}
    return tokenize(
        tokenizer,
        asked.messages,
        [completion],
        request.weight,
        tools=asked.tools,
        may_call=bool(request.tools),
        every_answer=every_answer,
    )
