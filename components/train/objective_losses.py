"""Losses and validation metrics of each objective."""

from bisect import bisect_left
from functools import cached_property

import torch  # noqa: TID253 - this module is itself imported late
from torch.nn.functional import cross_entropy, logsigmoid  # noqa: TID253 - as above

from components.train.micro_batches import MicroBatch
from components.train.recipe import Objective


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each token's negative log-likelihood ``[tokens]`` from ``logits [tokens, vocab]``."""
    return cross_entropy(logits, labels, reduction="none")


def distillation_loss(
    logits: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return each token's KL(teacher || student), ``[tokens]``; both logits ``[tokens, vocab]``.

    Multiplied by the square of the temperature, which keeps the gradients' scale (Hinton et al.,
    arXiv:1503.02531, section 2).
    """
    # The models of a family may pad the same vocabulary to different widths, such as Qwen 2.5's.
    width = min(logits.shape[-1], teacher.shape[-1])
    student = (logits[:, :width] / temperature).log_softmax(-1)
    target = (teacher[:, :width] / temperature).log_softmax(-1)
    return (target.exp() * (target - student)).sum(-1) * temperature**2


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Return each pair's loss ``[pairs]`` from log-likelihoods under model and reference.

    Rafailov et al., arXiv:2305.18290, equation 7.
    """
    return -logsigmoid(beta * ((chosen - reference_chosen) - (rejected - reference_rejected)))


def orpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Return each pair's odds-ratio loss ``[pairs]`` from mean log-likelihoods of answer tokens.

    Hong et al., arXiv:2403.07691, equations 6 and 7, where ``beta`` is lambda; the chosen answer's
    own loss is not included.
    """
    # The odds of an answer that the model is certain of are infinite, and their gradient no number.
    most = -torch.finfo(chosen.dtype).eps

    def log_odds(likelihoods: torch.Tensor) -> torch.Tensor:
        uncertain = likelihoods.clamp(max=most)
        return uncertain - torch.log1p(-uncertain.exp())

    return -beta * logsigmoid(log_odds(chosen) - log_odds(rejected))


def kto_loss(
    policy: torch.Tensor,
    reference: torch.Tensor,
    is_good: torch.Tensor,
    kl: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Return each labelled answer's loss ``[answers]`` (arXiv:2402.01306, equation 7).

    ``policy`` and ``reference`` are log-likelihoods under model and reference, ``kl`` is
    ``estimate_kl`` of the batch, without gradient.
    """
    log_ratio = policy - reference
    gain = torch.where(is_good, log_ratio - kl, kl - log_ratio)
    return 1 - torch.sigmoid(beta * gain)


def estimate_kl(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Estimate KL(model || reference), a scalar, from log-likelihoods of mismatched answers.

    Each answer is paired with another request; same section of the paper.
    """
    return (policy - reference).mean().clamp(min=0)


class ModelOutputs:
    """A model's ``logits`` ``[learned tokens, vocab]`` for a micro-batch, and its likelihoods."""

    def __init__(self, logits: torch.Tensor, micro_batch: MicroBatch) -> None:
        self.logits = logits
        self.micro_batch = micro_batch

    @cached_property
    def losses(self) -> torch.Tensor:
        """Each learned token's negative log-likelihood ``[learned tokens]``."""
        return sft_loss(self.logits, self.micro_batch["labels"])

    @cached_property
    def rows(self) -> torch.Tensor:
        """Each row's log-likelihood ``[rows]``."""
        return self._sum_by_row(-self.losses)

    @cached_property
    def means(self) -> torch.Tensor:
        """The mean log-likelihood of each row's tokens ``[rows]``."""
        return self.rows / self._sum_by_row(torch.ones_like(self.losses))

    def _sum_by_row(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros_like(self.micro_batch["row_weights"])
        return rows.index_add(0, self.micro_batch["row"], tokens)


def normalizer(objective: Objective, micro_batch: MicroBatch) -> torch.Tensor:
    """Return the micro-batch's part of the loss's denominator: tokens, pairs or labelled answers.

    Weighted by ``token_weights`` for tokens; row weights don't count.
    """
    match objective.kind:
        case "sft" | "distillation":
            return micro_batch["token_weights"].sum()
        case "dpo" | "orpo":
            return torch.ones_like(micro_batch["row_weights"]).sum() / 2
        case "kto":
            return torch.ones_like(micro_batch["row_weights"]).sum()


def batch_loss(
    objective: Objective, outputs: ModelOutputs, micro_batch: MicroBatch
) -> torch.Tensor:
    """Return the weighted sum of a micro-batch's losses, a scalar.

    ``micro_batch`` needs the tensors that ``CompletionTrainer`` adds for the objective.
    """
    match objective.kind:
        case "sft":
            return (outputs.losses * micro_batch["weights"]).sum()
        case "distillation":
            distilled = distillation_loss(
                outputs.logits, micro_batch["teacher"], objective.temperature
            )
            logged = 1 - objective.teacher_share
            mixed = logged * outputs.losses + objective.teacher_share * distilled
            return (mixed * micro_batch["weights"]).sum()
        case "dpo":
            chosen, rejected = outputs.rows[::2], outputs.rows[1::2]
            reference = micro_batch["reference"]
            losses = dpo_loss(chosen, rejected, reference[::2], reference[1::2], objective.beta)
            return (losses * micro_batch["row_weights"][::2]).sum()
        case "orpo":
            chosen, rejected = outputs.means[::2], outputs.means[1::2]
            losses = orpo_loss(chosen, rejected, objective.beta) - chosen
            return (losses * micro_batch["row_weights"][::2]).sum()
        case "kto":
            is_good = micro_batch["is_good"]
            losses = kto_loss(
                outputs.rows, micro_batch["reference"], is_good, micro_batch["kl"], objective.beta
            )
            label_weights = torch.where(
                is_good, objective.desirable_weight, objective.undesirable_weight
            )
            return (losses * label_weights * micro_batch["row_weights"]).sum()


class ValidationMetrics:
    """Accumulates validation metrics; all tokens or examples have equal weight.

    ``validation_loss`` is the mean loss of tokens, pairs or labelled answers.
    ``validation_accuracy`` is, for pairs, the fraction whose chosen answer gained more over the
    reference than the rejected one (ORPO: has the higher mean token likelihood); for labelled
    answers, the same fraction of all (good, bad) combinations. 0.5 is chance.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.loss, self.count = 0.0, 0.0
        self.good: list[float] = []
        self.bad: list[float] = []

    def add(self, outputs: ModelOutputs, micro_batch: MicroBatch) -> None:
        """Add a micro-batch."""
        weights = ("weights", "row_weights", "token_weights")
        ones = {name: torch.ones_like(micro_batch[name]) for name in weights}
        unweighted = {**micro_batch, **ones}
        self.loss += float(batch_loss(self.objective, outputs, unweighted))
        self.count += float(normalizer(self.objective, unweighted))
        if self.objective.kind == "orpo":
            self._add_gains(outputs.means, _is_chosen(micro_batch))
        elif self.objective.kind in ("dpo", "kto"):
            is_kto = self.objective.kind == "kto"
            is_good = micro_batch["is_good"] if is_kto else _is_chosen(micro_batch)
            self._add_gains(outputs.rows - micro_batch["reference"], is_good)

    def _add_gains(self, gains: torch.Tensor, is_good: torch.Tensor) -> None:
        self.good += gains[is_good].tolist()
        self.bad += gains[~is_good].tolist()

    def figures(self) -> dict[str, float]:
        """Return the metrics by name."""
        figures = {"validation_loss": self.loss / self.count}
        if not self.good or not self.bad:
            return figures
        if self.objective.kind in ("dpo", "orpo"):
            right = sum(good > bad for good, bad in zip(self.good, self.bad, strict=True))
            combinations = len(self.good)
        else:
            ranked = sorted(self.bad)
            right = sum(bisect_left(ranked, good) for good in self.good)
            combinations = len(self.good) * len(self.bad)
        return figures | {"validation_accuracy": right / combinations}


def _is_chosen(micro_batch: MicroBatch) -> torch.Tensor:
    # rows of pairs alternate: chosen, rejected
    return torch.arange(len(micro_batch["row_weights"]), device=micro_batch["row"].device) % 2 == 0
