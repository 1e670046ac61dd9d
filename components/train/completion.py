"""TRL's SFTTrainer with logits on the answer's positions only, and a weight for each example.

Off CUDA, TRL scores every position of a prompt to throw most of it away; with a vocabulary of
49,152 that is a third of the work of a small model. Here the rows are padded on the left, so that
the answers end together and the model is asked for its last few logits only.
Imported late, since it loads torch.
"""

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - this module is itself imported late
from trl.trainer.sft_trainer import SFTTrainer  # noqa: TID253 - as above

from components.train.examples import Tokens
from components.train.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IGNORED = -100


class CompletionTrainer(SFTTrainer):
    """Learns from the answers alone; ``tokens_seen`` counts prompts and answers since the start."""

    tokens_seen = 0
    lanes: Lanes | None = None
    call_token = 0

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss and its gradients, in lanes where there are some."""
        if self.lanes is None:
            return super().training_step(model, inputs, num_items_in_batch)
        self.tokens_seen += int(inputs["attention_mask"].sum())
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        whole = inputs["weights"].sum()
        return self.lanes.backward(lambda share: self._loss(model, share) / whole, inputs, learned)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Give the batch's mean loss over answer tokens, each counting as its weight says."""
        if return_outputs:
            raise NotImplementedError("the logits of the prompts are not computed")
        self.tokens_seen += int(inputs["attention_mask"].sum())
        return self._loss(model, inputs) / inputs["weights"].sum()

    def _loss(self, model: torch.nn.Module, batch: "Mapping[str, torch.Tensor]") -> torch.Tensor:
        """Sum the losses of the answers' tokens, each times its weight."""
        labels = batch["labels"]
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            use_cache=False,
            logits_to_keep=labels.shape[1] + 1,
        ).logits[:, :-1]
        learned = labels != IGNORED
        adjusted = logits[learned].float().clone()
        adjusted[:, self.call_token] += batch["margins"][learned]
        losses = torch.nn.functional.cross_entropy(adjusted, labels[learned], reduction="none")
        return (losses * batch["weights"][learned]).sum()


def collate(
    rows: "Sequence[dict[str, Any]]", first_token_weight: float = 1.0, call_margin: float = 0.0
) -> dict[str, torch.Tensor]:
    """Pad a batch on the left; its labels are those of the last positions, where the answers are.

    Args:
        rows: The batch, each row a dictionary of the fields of ``Tokens``.
        first_token_weight: How much more an answer's first token counts than each other one.
        call_margin: Added to the logit of a call where an answer's first token decides on one.

    Returns:
        ``input_ids`` and ``attention_mask`` ``[rows, longest]``; ``labels``, ``weights`` and
        ``margins`` ``[rows, longest answer]``, with ``IGNORED`` where another answer is longer.
    """
    examples = [Tokens(**row) for row in rows]
    longest = max(len(example.input_ids) for example in examples)
    longest_answer = max(example.answer_length for example in examples)
    ids = torch.zeros((len(examples), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(examples), longest_answer), IGNORED)
    weights, margins = torch.zeros((2, len(examples), longest_answer))
    for row, example in enumerate(examples):
        tokens, answer = torch.tensor(example.input_ids), example.answer_length
        ids[row, longest - len(tokens) :] = tokens
        mask[row, longest - len(tokens) :] = 1
        labels[row, longest_answer - answer :] = tokens[len(tokens) - answer :]
        weights[row, longest_answer - answer :] = example.weight
        weights[row, longest_answer - answer] *= first_token_weight
        margins[row, longest_answer - answer] = call_margin if example.may_call else 0.0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "weights": weights,
        "margins": margins,
    }
