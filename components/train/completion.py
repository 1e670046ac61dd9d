"""TRL's SFTTrainer with logits on the answers' positions only, and a weight for each example.

TRL computes each prompt by itself, though many begin alike, and off CUDA it scores every position
of a prompt to throw most of that away; with a vocabulary of 49,152 that is a third of the work of a
small model. Here ``packing`` puts the rows into sequences, and the model is asked for the logits
that predict answers.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from math import ceil
from typing import Any, TypeAlias

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late
from trl.trainer.sft_trainer import SFTTrainer  # noqa: TID253 - as above

from components.train import packing
from components.train.examples import Tokens
from components.train.lanes import Lanes

Share: TypeAlias = Mapping[str, torch.Tensor]
"""Some of a batch's rows as one sequence; ``collate`` says what is in it."""

LONGEST = 2048
"""Tokens in a sequence, beyond which rows are put into several: attention grows with its square."""


class CompletionTrainer(SFTTrainer):
    """Learns from the answers alone; ``tokens_seen`` counts prompts and answers since the start."""

    tokens_seen = 0
    lanes: Lanes | None = None
    call_token = 0

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss and its gradients, in lanes where there are some."""
        if self.lanes is None:
            return super().training_step(model, inputs, num_items_in_batch)
        loss_of, shares = self._loss_of(model, inputs)
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        return self.lanes.backward(loss_of, shares, learned)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Give the batch's mean loss over answer tokens, each times the weight of its example.

        The mean is over all tokens alike: an example of half the weight moves the model half as
        far, in whatever company; with weights of 1 it is the plain mean.
        """
        if return_outputs:
            raise NotImplementedError("the logits of the prompts are not computed")
        loss_of, shares = self._loss_of(model, inputs)
        return torch.stack([loss_of(share) for share in shares]).sum()

    def measure(self, rows: Sequence[Tokens], batch_size: int) -> float:
        """Give the mean loss over the answers' tokens, all alike, learning nothing from it."""
        assert isinstance(self.model, torch.nn.Module)
        model = self.model.eval()
        device = next(model.parameters()).device
        total, tokens = 0.0, 0
        for start in range(0, len(rows), batch_size):
            batch = [asdict(replace(one, weight=1.0)) for one in rows[start : start + batch_size]]
            for share in collate(batch)["shares"]:
                placed = {name: tensor.to(device) for name, tensor in share.items()}
                with torch.no_grad():
                    total += float(self._loss(model, placed))
                tokens += len(share["labels"])
        return total / tokens

    def _loss_of(
        self, model: torch.nn.Module, inputs: dict[str, Any]
    ) -> tuple[Callable[[Share], torch.Tensor], list[Share]]:
        """Give the batch's shares, and what computes the part of the loss that is a share's."""
        shares: list[Share] = inputs["shares"]
        self.tokens_seen += sum(int(share["row_tokens"]) for share in shares)
        whole = torch.stack([share["whole"].sum() for share in shares]).sum()
        return lambda share: self._loss(model, share) / whole, shares

    def _loss(self, model: torch.nn.Module, share: Share) -> torch.Tensor:
        """Sum the losses of the answers' tokens, each times its weight."""
        dtype = getattr(model, "dtype", torch.float32)
        unseen = torch.zeros_like(share["seen"], dtype=dtype)
        unseen.masked_fill_(~share["seen"], torch.finfo(dtype).min)
        logits = model(
            input_ids=share["input_ids"][None],
            position_ids=share["position_ids"][None],
            attention_mask=unseen[None, None],
            use_cache=False,
            logits_to_keep=share["predicting"],
        ).logits[0]
        adjusted = logits.float().clone()
        adjusted[:, self.call_token] += share["margins"]
        losses = torch.nn.functional.cross_entropy(adjusted, share["labels"], reduction="none")
        return (losses * share["weights"]).sum()


def collate(
    rows: Sequence[dict[str, Any]],
    *,
    lanes: int = 1,
    first_token_weight: float = 1.0,
    call_margin: float = 0.0,
) -> dict[str, list[Share]]:
    """Make a batch of ``shares``, at least one for each lane where there are rows enough.

    Args:
        rows: The batch, each row a dictionary of the fields of ``Tokens``.
        lanes: How many shares are computed at a time.
        first_token_weight: How much more an answer's first token counts than each other one.
        call_margin: Added to the logit of a call where an answer's first token decides on one.

    Returns:
        Of each share: ``input_ids`` and ``position_ids`` ``[tokens]``, ``seen`` ``[tokens,
        tokens]``, and of its answers' tokens the place ``predicting`` each, its ``labels``,
        ``weights``, ``whole`` weights if every example had the weight 1, and ``margins``, all
        ``[answer tokens]``; ``row_tokens`` counts its rows' tokens, of which those in common are in
        the sequence once.
    """
    examples = [Tokens(**row) for row in rows]
    ids = [example.input_ids for example in examples]
    count = lanes * ceil(packing.size(ids) / LONGEST / lanes)
    return {
        "shares": [
            _share([examples[row] for row in share], first_token_weight, call_margin)
            for share in packing.share_out(ids, count)
        ]
    }


def _share(examples: Sequence[Tokens], first_token_weight: float, call_margin: float) -> Share:
    packed = packing.pack([example.input_ids for example in examples])
    answers = [example.input_ids[example.prompt_length :] for example in examples]
    whole = [np.ones(example.answer_length) for example in examples]
    margins = [np.zeros(example.answer_length) for example in examples]
    for one, margin, example in zip(whole, margins, examples, strict=True):
        one[0] *= first_token_weight
        margin[0] = call_margin if example.may_call else 0.0
    weights = [one * example.weight for one, example in zip(whole, examples, strict=True)]
    predicting = [
        places[example.prompt_length - 1 : -1]
        for places, example in zip(packed.places, examples, strict=True)
    ]
    return {
        "input_ids": torch.from_numpy(packed.tokens),
        "position_ids": torch.from_numpy(packed.positions),
        "seen": torch.from_numpy(packed.seen),
        "predicting": torch.from_numpy(np.concatenate(predicting)),
        "labels": torch.tensor([token for answer in answers for token in answer]),
        "weights": torch.from_numpy(np.concatenate(weights)).float(),
        "whole": torch.from_numpy(np.concatenate(whole)).float(),
        "margins": torch.from_numpy(np.concatenate(margins)).float(),
        "row_tokens": torch.tensor(sum(len(example.input_ids) for example in examples)),
    }
