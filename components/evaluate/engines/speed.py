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

TIMED = 5  # requests that are timed one at a time: enough for a median, few enough to take seconds

MAX_TOKENS = 16  # timed tokens per request


def measure_speed(
    alone: Callable[[str], tuple[float, float]],
    tokenizer: "PreTrainedTokenizerBase",
    samples: Sequence[Sample],
    elapsed: TimeMark,
) -> Speed:
    """Count the tokens of all samples, and time a few requests again, one at a time.

    ``alone`` is ``LoadedAdapter.alone``; ``elapsed`` are the samples' wall time and CPU time.
    """
    inputs = [_count_tokens(tokenizer, sample.prompt) for sample in samples]
    outputs = [_count_tokens(tokenizer, sample.output) for sample in samples]
    timed = samples[:: max(1, -(-len(samples) // TIMED))]
    times = [alone(sample.prompt) for sample in timed]
    return Speed(
        requests=len(samples),
        input_tokens=sum(inputs),
        output_tokens=sum(outputs),
        seconds=round(elapsed.wall, 3),
        machine=_machine_name(),
        first_token=round(statistics.median(first for first, _ in times), 4),
        tokens_per_second=round(statistics.median(rate for _, rate in times), 2),
        timed=len(times),
        work=device.measure_work(
            cpu=elapsed.cpu, wall=elapsed.wall, gpus_held=1 if torch.cuda.is_available() else 0
        ),
    )


@torch.inference_mode()
def time_alone(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    length: int,
    prompt: str,
) -> tuple[float, float]:
    """Answer one request; return the seconds to its first token, and then the tokens per second.

    Of a prompt that exceeds the context window of ``length`` tokens only the end is read, as in an
    evaluation. Generation continues past an end token, since the time per token does not depend on
    it.
    """
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    room = max(1, length - MAX_TOKENS)
    tokens, cache = inputs["input_ids"][:, -room:].to(model.device), None
    marks = [time.perf_counter()]
    for _ in range(MAX_TOKENS + 1):
        output = model(input_ids=tokens, cache=cache, use_cache=True, logits_to_keep=1)
        tokens, cache = output.logits[:, -1:].argmax(-1), output.cache
        int(tokens)  # waits for a GPU
        marks.append(time.perf_counter())
    return marks[1] - marks[0], MAX_TOKENS / (marks[-1] - marks[1])


def _count_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _machine_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} thread{'' if threads == 1 else 's'} of {device.device_name()}"
