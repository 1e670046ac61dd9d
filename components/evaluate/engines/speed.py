"""Measure how fast a model answers, in batches and one request at a time."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late

from components.costs import Speed
from components.evaluate.engines.protocol import TimeMark
from components.models import device
from components.scorecard import Sample

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TIMED = 5
"""Requests that are answered one at a time: enough for a median, few enough to take seconds."""

MOST_TOKENS = 16
"""Tokens of each that are timed."""


def measure_speed(
    alone: Callable[[str], tuple[float, float]],
    tokenizer: "PreTrainedTokenizerBase",
    samples: Sequence[Sample],
    took: TimeMark,
) -> Speed:
    """Count the tokens of what was answered, and answer a few requests again, alone.

    Args:
        alone: How the model that answered answers one request by itself.
        tokenizer: Its tokenizer.
        samples: All that it answered.
        took: The wall time and the CPU time of that.
    """
    asked = [_count_tokens(tokenizer, one.prompt) for one in samples]
    written = [_count_tokens(tokenizer, one.output) for one in samples]
    some = samples[:: max(1, -(-len(samples) // TIMED))]
    waits = [alone(one.prompt) for one in some]
    return Speed(
        requests=len(samples),
        input_tokens=sum(asked),
        output_tokens=sum(written),
        seconds=round(took.wall, 3),
        machine=_machine_name(),
        first_token=round(statistics.median(first for first, _ in waits), 4),
        tokens_per_second=round(statistics.median(pace for _, pace in waits), 2),
        timed=len(waits),
        work=device.measure_work(
            cpu=took.cpu, wall=took.wall, gpus_held=1 if torch.cuda.is_available() else 0
        ),
    )


@torch.inference_mode()
def time_alone(
    model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase", prompt: str
) -> tuple[float, float]:
    """Answer one request; give the seconds to its first token, and the tokens a second after it.

    It goes on past an end token: what is timed is how long a token takes, whichever it is.
    """
    given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    tokens, cache = given["input_ids"].to(model.device), None
    marks = [time.perf_counter()]
    for _ in range(MOST_TOKENS + 1):
        seen = model(input_ids=tokens, cache=cache, use_cache=True, logits_to_keep=1)
        tokens, cache = seen.logits[:, -1:].argmax(-1), seen.cache
        int(tokens)  # waits for a GPU
        marks.append(time.perf_counter())
    return marks[1] - marks[0], MOST_TOKENS / (marks[-1] - marks[1])


def _count_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _machine_name() -> str:
    """Name what computes in a reader's words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} thread{'' if threads == 1 else 's'} of {device.device_name()}"
