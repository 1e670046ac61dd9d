"""Tell what of a step is in memory at once: as many shares as there are lanes.

Imported late, since it loads torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from components.train import batches, cpu_engine, fit
from components.train.lessons import Lesson
from components.train.plan import hollow, trace
from components.train.plan.memory import Step
from components.train.plan.parameters import Parameters
from components.train.plan.planned import Device
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from components.train.batches import Share


def step(
    config: "PretrainedConfig", lessons: Sequence[Lesson], recipe: Recipe, device: Device
) -> tuple[Parameters, Step]:
    """Trace the largest share of a step and take the others in proportion to their tokens.

    Lanes keep the gradients of each share apart until all are there and can be added; without them
    those of one share are added to those before it.

    Args:
        config: The base's.
        lessons: The step's.
        recipe: The training's.
        device: Where it will be trained; on a CPU in lanes and with plain attention.
    """
    adapted, parameters = hollow.adapted(config, recipe, "eager" if device == "cpu" else None)
    teacher, objective = None, recipe.objective
    if objective.kind == "distillation":
        teacher = hollow.teacher(objective.teacher_model_name_or_path)
        size = sum(weight.nbytes for weight in teacher.parameters())
        parameters = replace(parameters, teacher_bytes=size)
    mode = trace.give_shapes(adapted, teacher)
    at_a_time = 1
    if engine := cpu_engine.for_device(device):
        held = engine.prepare(adapted, holds_head=True)
        unquantized = parameters.unquantized_bytes + held
        parameters = replace(parameters, unquantized_bytes=unquantized)
        at_a_time = engine.lanes(adapted)
    made = batches.collate(
        [asdict(lesson) for lesson in lessons], fit.shape(recipe, lanes=at_a_time)
    )
    shares = sorted(made["shares"], key=_tokens, reverse=True)
    together = shares[:at_a_time]
    largest = trace.placed(made | {"shares": shares[:1]}, mode)
    with mode:
        traced = trace.step(
            adapted,
            largest,
            objective,
            teacher,
            words=config.get_text_config().vocab_size,
            checkpointing=recipe.gradient_checkpointing,
        )
    apart = at_a_time > 1 and len(shares) > 1
    waiting = len(shares) - len(together)
    traced = Step(
        activations=round(traced.activations * _ratio([_tokens(one) for one in together])),
        logits=round(traced.logits * _ratio([len(one["labels"]) for one in together])),
        gradient_sets=len(shares) + 1 if apart else 1,
        sets_before=waiting if apart else min(waiting, 1),
    )
    return parameters, traced


def _tokens(share: "Share") -> int:
    return len(share["input_ids"])


def _ratio(sizes: Sequence[int]) -> float:
    return sum(sizes) / sizes[0]
