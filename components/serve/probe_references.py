"""Compute what an adapter and its base make of fixed texts, to prove them at an engine by.

`python -m components.serve.probe_references` loads torch, so it is a process of its own. The texts
are ours: a holdout's would keep people's words in files that an erasure does not find.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components.chat import chat_templates, dialects
from components.models import base as bases
from components.schema import Answer, Call, Json, Precision
from components.serve import proof
from components.serve.engines.serving_engine import Probe
from components.serve.proof import GreedyAnswer, Logprobs, References

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_TOKENS = 192  # of a probe; a longer one is left out
GREEDY_ANSWERS = 2
GREEDY_TOKENS = 12
CLEAR_MARGIN = {"fp32": 0.1}  # nats between the best two tokens, by precision
CLEAR_MARGIN_16 = 0.5

REQUESTS: tuple[tuple[str, Answer], ...] = (
    ("My parcel has not arrived. Where is it?", Answer("I will look that up for you.")),
    ("Which category fits: the screen stays dark", Answer('{"category": "hardware"}')),
    (
        "How deep is the Walensee?",
        Answer(calls=(Call("sound_depth", {"lake": "Walensee"}),)),
    ),
    ("Summarise: the meeting was moved to Friday.", Answer("The meeting is on Friday.")),
    ("Cancel my order 4711, please", Answer(calls=(Call("cancel", {"order": 4711}),))),
    ("Translate to French: good morning", Answer("Bonjour")),
    ("What is 12 times 12?", Answer("144")),
    ("Write a haiku about rain", Answer("I can't help with that.")),
)


def make_references(
    base: Path, base_hash: str, adapter: Path, key: str, precision: Precision
) -> References:
    """Compute an adapter's references at the precision that serves it."""
    import torch

    from components.models.threads import Threads  # noqa: PLC0415 - loads torch

    model, tokenizer = bases.load(base, precision, for_training=False)
    probes, threads = standard_probes(tokenizer), Threads()
    with threads.chosen(), torch.inference_mode():
        of_base = _score_alone(model, probes)
        noise = _noise(model, probes, of_base)
    with threads.chosen(), torch.inference_mode():
        adapted = cast("PreTrainedModel", bases.attach_adapter(model, adapter).eval())
        of_adapter = _score_alone(adapted, probes)
        noise = max(noise, _noise(adapted, probes, of_adapter))
    with threads.chosen(), torch.inference_mode():
        answers = [_answer_greedily(adapted, tokenizer, probe, precision) for probe in probes]
        answers.sort(key=lambda answer: -answer.clear)
        greedy = tuple(answers[:GREEDY_ANSWERS])
    return References(key, base_hash, precision, probes, of_adapter, of_base, noise, greedy)


def standard_probes(tokenizer: "PreTrainedTokenizerBase") -> tuple[Probe, ...]:
    """Return the texts that all adapters of a base are proved by."""
    probes: list[Probe] = []
    for text, answer in REQUESTS:
        messages: list[dict[str, Json]] = [{"role": "user", "content": text}]
        rendered = chat_templates.render(tokenizer, messages, [])
        prompt = rendered.to_text(tokenizer)
        written = dialects.write_answer(rendered.form, answer)
        probes.append(
            Probe(prompt, written, _tokens(tokenizer, prompt), _tokens(tokenizer, written))
        )
    probes.sort(key=lambda probe: len(probe.prompt_tokens) + len(probe.answer_tokens))
    fitting = [
        probe
        for probe in probes
        if len(probe.prompt_tokens) + len(probe.answer_tokens) <= MAX_TOKENS
    ]
    return tuple(fitting or probes[:1])


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> tuple[int, ...]:
    return tuple(cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"]))


def _score_alone(model: "PreTrainedModel", probes: Sequence[Probe]) -> tuple[Logprobs, ...]:
    return tuple(_score(model, [probe])[0] for probe in probes)


def _noise(model: "PreTrainedModel", probes: Sequence[Probe], alone: Sequence[Logprobs]) -> float:
    """Return the largest mean difference when probes are scored again, and in one batch."""
    others = (_score_alone(model, probes), _score(model, probes))
    return max(
        proof.distance([score], [known])
        for scores in others
        for score, known in zip(scores, alone, strict=True)
    )


def _score(model: "PreTrainedModel", probes: Sequence[Probe]) -> tuple[Logprobs, ...]:
    """Return the log-probabilities of the answers' tokens, from one padded batch."""
    import torch

    rows = [[*probe.prompt_tokens, *probe.answer_tokens] for probe in probes]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    logits = model(input_ids=ids, attention_mask=mask.to(model.device)).logits
    return tuple(_answer_logprobs(logits[number], probe) for number, probe in enumerate(probes))


def _answer_logprobs(logits: "torch.Tensor", probe: Probe) -> Logprobs:
    import torch

    start, count = len(probe.prompt_tokens) - 1, len(probe.answer_tokens)
    logprobs = logits[start : start + count].float().log_softmax(-1)
    tokens = torch.tensor(probe.answer_tokens, device=logits.device)
    return tuple(logprobs.gather(1, tokens[:, None])[:, 0].tolist())


def _answer_greedily(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    probe: Probe,
    precision: Precision,
) -> GreedyAnswer:
    """Answer a prompt greedily; the clear part ends before the first token that was close."""
    import torch

    written, logprobs, margins = list[int](), list[float](), list[float]()
    ends, cache = bases.end_tokens(model, tokenizer), None
    ids = torch.tensor([probe.prompt_tokens], device=model.device)
    for _ in range(GREEDY_TOKENS):
        output = model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        cache = output.cache
        best = output.logits[0, -1].float().log_softmax(-1).topk(2)
        token = int(best.indices[0])
        if token in ends:
            break
        written.append(token)
        ids = torch.tensor([[token]], device=model.device)
        logprobs.append(float(best.values[0]))
        margins.append(float(best.values[0] - best.values[1]))
    least = CLEAR_MARGIN.get(precision, CLEAR_MARGIN_16)
    clear = next((n for n, margin in enumerate(margins) if margin < least), len(margins))
    # Up to the first half of a character, which servers write differently.
    text = str(tokenizer.decode(written[:clear], skip_special_tokens=True)).split("\ufffd")[0]
    return GreedyAnswer(probe.prompt, probe.prompt_tokens, text, tuple(logprobs), clear)


def main() -> int:
    """Make the references that the command line names, and write them."""
    parser = argparse.ArgumentParser("components.serve.probe_references", description=__doc__)
    add = parser.add_argument
    add("--base", type=Path, required=True)
    add("--base-hash", required=True)
    add("--adapter", type=Path, required=True)
    add("--key", required=True)
    add("--precision", required=True)
    add("--to", type=Path, required=True)
    options = parser.parse_args()
    made = make_references(
        options.base, options.base_hash, options.adapter, options.key, options.precision
    )
    made.write(options.to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
