"""Measure how likely a model finds the answers to rows that it never learned.

Imported late, since it loads torch.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch  # noqa: TID253 - this module is itself imported late

from components.train import asking, batches
from components.train.learning import Said
from components.train.lessons import Lesson


def nats(model: torch.nn.Module, lessons: Sequence[Lesson], batch_size: int) -> dict[str, float]:
    """Give the negative log-likelihood of each lesson's answer, whole and in nats, by row id.

    It is the same whatever the objective, and in whatever tokens a base writes the answer, so
    it compares trainings of different kinds. The model is in evaluation mode from then on.

    Args:
        model: The base with its adapter.
        lessons: One answer each.
        batch_size: Lessons that are computed at a time.

    Raises:
        FloatingPointError: One is no number.
    """
    device = next(model.eval().parameters()).device
    ordered = sorted(lessons, key=lambda one: one.rows[0].input_ids)  # alike together
    found: dict[str, float] = {}
    for start in range(0, len(ordered), batch_size):
        some = ordered[start : start + batch_size]
        for share in batches.collate([asdict(one) for one in some])["shares"]:
            placed = {name: tensor.to(device) for name, tensor in share.items()}
            with torch.no_grad():
                said = Said(asking.logits(model, placed), placed).rows.tolist()
            for number, likelihood in zip(share["lesson"].tolist(), said, strict=True):
                found[some[number].row_id] = -likelihood
    if not all(map(math.isfinite, found.values())):
        raise FloatingPointError(
            "the loss on the validation rows is no number: the training diverged, a lower "
            "learning_rate would help"
        )
    return found


def mean(found: dict[str, float], lessons: Sequence[Lesson]) -> float:
    """Give the mean over the answers' tokens, all tokens alike."""
    return math.fsum(found.values()) / sum(lesson.rows[0].answer_length for lesson in lessons)
