"""Losses and validation metrics of each objective."""

from functools import cached_property

import torch  # noqa: TID253 - this module is itself imported late
from torch.nn.functional import cross_entropy, logsigmoid  # noqa: TID253 - as above

from components.train.micro_batches import MicroBatch
from components.train.recipe import Objective


def sft_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Give each token's negative log-likelihood ``[tokens]`` from ``logits [tokens, words]``."""
    return cross_entropy(logits, labels, reduction="none")


def distillation_loss(
    logits: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Give each token's divergence from the teacher, KL(teacher || student), ``[tokens]``.

    Times the square of the temperature, so that gradients keep their size (Hinton et al.,
    arXiv:1503.02531, section 2). Both logits are ``[tokens, words]``.
    """
    student = (logits / temperature).log_softmax(-1)
    wanted = (teacher / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - student)).sum(-1) * temperature**2


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    base_chosen: torch.Tensor,
    base_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """Give each pair's loss ``[pairs]`` from its answers' log-likelihoods under model and base.

    Rafailov et al., arXiv:2305.18290, equation 7.
    """
    return -logsigmoid(beta * ((chosen - base_chosen) - (rejected - base_rejected)))


def orpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
    """Give each pair's odds-ratio loss ``[pairs]``, without the chosen answer's own.

    Hong et al., arXiv:2403.07691, equations 6 and 7, where ``beta`` is lambda.

    Args:
        chosen: Mean log-likelihood of the chosen answers' tokens.
        rejected: That of the rejected ones.
        beta: How much it counts.
    """
    odds = _log_odds(chosen) - _log_odds(rejected)
    return -beta * logsigmoid(odds)


def _log_odds(likelihoods: torch.Tensor) -> torch.Tensor:
    return likelihoods - torch.log1p(-likelihoods.exp())


def kto_loss(
    said: torch.Tensor, base: torch.Tensor, is_good: torch.Tensor, drift: torch.Tensor, beta: float
) -> torch.Tensor:
    """Give each labelled answer's loss ``[answers]``.

    Ethayarajh et al., arXiv:2402.01306, equation 7.

    Args:
        said: The answers' log-likelihoods under the model.
        base: Those under the base.
        is_good: Their labels.
        drift: How far the model is from the base at all, ``drift_of`` a batch; no gradient goes
            through it.
        beta: How sharply the value saturates.
    """
    gain = torch.where(is_good, said - base - drift, drift - (said - base))
    return 1 - torch.sigmoid(beta * gain)


def estimate_kl(said: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Estimate KL(model || base), a number, from answers that stand under other requests.

    The same section; ``said`` and ``base`` are their log-likelihoods.
    """
    return (said - base).mean().clamp(min=0)


class ModelOutputs:
    """What a model makes of a share's answers: of their tokens ``logits``, of them likelihoods."""

    def __init__(self, logits: torch.Tensor, share: MicroBatch) -> None:
        self.logits = logits
        self.share = share

    @cached_property
    def losses(self) -> torch.Tensor:
        """Each learned token's negative log-likelihood."""
        return sft_loss(self.logits, self.share["labels"])

    @cached_property
    def rows(self) -> torch.Tensor:
        """Each row's log-likelihood ``[rows]``."""
        return self._sums(-self.losses)

    @cached_property
    def means(self) -> torch.Tensor:
        """The mean log-likelihood of each row's tokens ``[rows]``."""
        return self.rows / self._sums(torch.ones_like(self.losses))

    def _sums(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros_like(self.share["row_weights"])
        return rows.index_add(0, self.share["row"], tokens)


def normalizer(objective: Objective, share: MicroBatch) -> torch.Tensor:
    """Give what the share's losses are divided by, summed over the batch: tokens, or lessons."""
    match objective.kind:
        case "sft" | "distillation":
            return share["whole"].sum()
        case "dpo" | "orpo":
            return torch.ones_like(share["row_weights"]).sum() / 2
        case "kto":
            return torch.ones_like(share["row_weights"]).sum()


def batch_loss(objective: Objective, said: ModelOutputs, share: MicroBatch) -> torch.Tensor:
    """Sum the losses of a share's lessons, each times its weight; ``asides`` were added to it."""
    match objective.kind:
        case "sft":
            return (said.losses * share["weights"]).sum()
        case "distillation":
            told = distillation_loss(said.logits, share["teacher"], objective.temperature)
            logged = 1 - objective.teacher_share
            mixed = logged * said.losses + objective.teacher_share * told
            return (mixed * share["weights"]).sum()
        case "dpo":
            return (_dpo_losses(objective.beta, said, share) * share["row_weights"][::2]).sum()
        case "orpo":
            chosen, rejected = said.means[::2], said.means[1::2]
            found = orpo_loss(chosen, rejected, objective.beta) - chosen
            return (found * share["row_weights"][::2]).sum()
        case "kto":
            found = kto_loss(
                said.rows, share["base"], share["is_good"], share["drift"], objective.beta
            )
            kinds = torch.where(
                share["is_good"], objective.desirable_weight, objective.undesirable_weight
            )
            return (found * kinds * share["row_weights"]).sum()


def _dpo_losses(beta: float, said: ModelOutputs, share: MicroBatch) -> torch.Tensor:
    chosen, rejected = said.rows[::2], said.rows[1::2]
    return dpo_loss(chosen, rejected, share["base"][::2], share["base"][1::2], beta)


class ValidationMetrics:
    """Adds up what is measured of lessons that are not learned.

    ``validation_loss`` is the mean of the tokens' or the lessons' losses, all alike. Of pairs,
    ``validation_accuracy`` is the share whose chosen answer gained more on the base than the
    rejected one (ORPO: whose tokens are likelier on average); of labelled answers, the share of
    all pairs of a good and a bad one of which the good one did: 0.5 is chance.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.loss, self.count = 0.0, 0.0
        self.good: list[float] = []
        self.bad: list[float] = []

    def add(self, said: ModelOutputs, share: MicroBatch) -> None:
        """Add a share's lessons."""
        alike = {**share, "weights": torch.ones_like(share["weights"])}
        alike["row_weights"] = torch.ones_like(share["row_weights"])
        if self.objective.kind == "sft":
            self.loss += float(said.losses.sum())
            self.count += len(share["labels"])
            return
        self.loss += float(batch_loss(self.objective, said, alike))
        self.count += float(
            len(share["labels"])
            if self.objective.kind == "distillation"
            else normalizer(self.objective, share)
        )
        if self.objective.kind == "orpo":
            self._sort(said.means, _alternating(share))
        elif self.objective.kind in ("dpo", "kto"):
            is_good = share["is_good"] if self.objective.kind == "kto" else _alternating(share)
            self._sort(said.rows - share["base"], is_good)

    def _sort(self, gains: torch.Tensor, is_good: torch.Tensor) -> None:
        self.good += gains[is_good].tolist()
        self.bad += gains[~is_good].tolist()

    def figures(self) -> dict[str, float]:
        """Give what was found."""
        found = {"validation_loss": self.loss / self.count}
        if self.objective.kind in ("dpo", "orpo"):
            right = [good > bad for good, bad in zip(self.good, self.bad, strict=True)]
            found["validation_accuracy"] = sum(right) / len(right)
        elif self.good and self.bad:
            right = [good > bad for good in self.good for bad in self.bad]
            found["validation_accuracy"] = sum(right) / len(right)
        return found


def _alternating(share: MicroBatch) -> torch.Tensor:
    return torch.arange(len(share["row_weights"]), device=share["row"].device) % 2 == 0
