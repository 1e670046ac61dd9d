"""The model as lm-eval sees it: HFLM with a greedy loop that drops finished answers from the batch.

Stock generation goes on with every row of a batch until the longest answer ends; most answers are
short calls, so dropping the finished ones takes about half the time and gives the same tokens.
Imported late, since it loads torch.
"""
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false
# lm-eval's class decorator hides HFLM's own type: pyright sees its bare interface.

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from lm_eval.models.huggingface import HFLM  # noqa: TID253 - as above

from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Answerer(HFLM):
    """Answers requests with a model object and reports before the first batch and after each."""

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        tokenizer: "PreTrainedTokenizerBase",
        batch_size: int,
        *,
        stage: str,
        report: Callable[[Progress], None],
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.stage, self.report = stage, report
        self.ends = _ends(model, tokenizer)
        self.done = self.asked = 0

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """Answer all requests; ``report`` takes the place of lm-eval's own bar."""
        self.done, self.asked = 0, len(requests)
        self._say()
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _model_generate(
        self,
        context: torch.Tensor,
        max_length: int,
        stop: list[str],
        *,
        attention_mask: torch.Tensor,
        do_sample: bool = False,
        **_: object,
    ) -> torch.Tensor:
        """Answer one batch: prompts and answers in one tensor, padded right."""
        if do_sample:
            raise ValueError("a holdout is answered greedily, so that its scores are repeatable")
        length = max_length - context.shape[1]
        answers = greedy(self.model, context, attention_mask, max_new_tokens=length, ends=self.ends)
        self.done += context.shape[0]
        self._say()
        return torch.cat([context, answers], dim=1)

    def _say(self) -> None:
        self.report(Progress(self.stage, self.done, self.asked, "requests"))


def _ends(model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """List what ends an answer: the tokenizer's end token, and those the model was shipped with."""
    shipped = getattr(model.generation_config, "eos_token_id", None)
    ends = [tokenizer.eos_token_id, *(shipped if isinstance(shipped, list) else [shipped])]
    return list(dict.fromkeys(end for end in ends if isinstance(end, int)))


@torch.inference_mode()
def greedy(
    model: "PreTrainedModel | PeftModel",
    prompts: torch.Tensor,
    mask: torch.Tensor,
    *,
    max_new_tokens: int,
    ends: list[int],
) -> torch.Tensor:
    """Take the likeliest token until an end token, dropping each row from the batch as it ends.

    Args:
        model: A causal language model.
        prompts: Token ids, padded left, ``[rows, prompt tokens]``.
        mask: 1 where a token is none of the padding, same shape.
        max_new_tokens: Where an answer is cut off.
        ends: The tokens that end an answer; the first also pads the shorter ones.

    Returns:
        The new tokens, ``[rows, max_new_tokens]``.
    """
    answers = torch.full((len(prompts), max_new_tokens), ends[0], device=prompts.device)
    stops = torch.tensor(ends, device=prompts.device)
    rows = torch.arange(len(prompts), device=prompts.device)
    tokens, places, cache = prompts, (mask.cumsum(1) - 1).clamp(min=0), None
    for step in range(max_new_tokens):
        seen = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=places,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = seen.logits[:, -1].argmax(-1)
        answers[rows, step] = chosen
        live = ~torch.isin(chosen, stops)
        if not live.any():
            break
        cache = seen.cache
        if not live.all():
            cache.batch_select_indices(live.nonzero()[:, 0])
        rows, chosen = rows[live], chosen[live]
        tokens, places = chosen[:, None], places[live, -1:] + 1
        mask = torch.cat([mask[live], torch.ones_like(chosen)[:, None]], dim=1)
    return answers
