"""Score continuations in padded batches, on CUDA and for a model that can't read a tree.

lm-eval would compute the logits of whole prompts, and round the log-probabilities to the model's 16
bits, where those of most labels are multiples of 1/32 or 1/16. Imported late: it loads torch.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late

from components.models.prefix_tree import Row, scored_row

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@torch.inference_mode()
def likelihoods(
    model: "PreTrainedModel | PeftModel",
    requests: Sequence[tuple[Row, Row]],
    *,
    window: int,
    batch_size: int,
    report: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """Score the continuations of contexts; see ``prefix_cache.generate.likelihoods``.

    What several requests have the model read is read once.
    """
    numbers: dict[tuple[int, ...], list[int]] = {}
    for number, (context, continuation) in enumerate(requests):
        row = tuple(scored_row(context, continuation, window))
        numbers.setdefault(row, []).append(number)
    scores: dict[int, tuple[float, bool]] = {}
    rows = sorted(numbers, key=lambda row: (-len(row), row))
    for first in range(0, len(rows), batch_size):
        batch = rows[first : first + batch_size]
        lengths = [max(len(requests[number][1]) for number in numbers[row]) for row in batch]
        for row, logits in zip(batch, _last_logits(model, batch, lengths), strict=True):
            for number in numbers[row]:
                scores[number] = _score(logits, requests[number][1])
        report(len(scores))
    return [scores[number] for number in range(len(requests))]


def _last_logits(
    model: "PreTrainedModel | PeftModel", rows: Sequence[Row], counts: Sequence[int]
) -> list[torch.Tensor]:
    """Return the logits of each row's last ``counts`` tokens, ``[count, vocabulary]``."""
    spans = [(len(row) - count, len(row)) for row, count in zip(rows, counts, strict=True)]
    places = sorted({place for start, end in spans for place in range(start, end)})
    longest = max(map(len, rows))
    # Padding comes last, so that no token sees any.
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    kept = torch.tensor(places, device=model.device)
    logits = cast("Any", model)(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    if logits.shape[1] != len(places):  # some models (xLSTM) give those of all tokens
        logits = logits[:, kept]
    starts = [places.index(start) for start, _ in spans]
    return [
        of_row[start : start + count]
        for of_row, start, count in zip(logits, starts, counts, strict=True)
    ]


def _score(logits: torch.Tensor, continuation: Row) -> tuple[float, bool]:
    logs = logits[-len(continuation) :].float().log_softmax(-1)
    tokens = torch.tensor(continuation, device=logits.device)
    total = logs.gather(1, tokens[:, None]).double().sum()
    return float(total), bool((logs.argmax(-1) == tokens).all())
