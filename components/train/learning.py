"""What a share's answers cost under an objective, and what is measured of it.

Imported late, since it loads torch.
"""

from functools import cached_property

import torch  # noqa: TID253 - this module is itself imported late

from components.train.batches import Share
from components.train.objectives import losses
from components.train.objectives.settings import Objective


class Said:
    """What a model makes of a share's answers: of their tokens ``logits``, of them likelihoods."""

    def __init__(self, logits: torch.Tensor, share: Share) -> None:
        self.logits = logits
        self.share = share

    @cached_property
    def losses(self) -> torch.Tensor:
        """Each learned token's negative log-likelihood."""
        return losses.sft(self.logits, self.share["labels"])

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


def whole(objective: Objective, share: Share) -> torch.Tensor:
    """Give what the share's losses are divided by, summed over the batch: tokens, or lessons."""
    match objective.kind:
        case "sft" | "distillation":
            return share["whole"].sum()
        case "dpo" | "orpo":
            return torch.ones_like(share["row_weights"]).sum() / 2
        case "kto":
            return torch.ones_like(share["row_weights"]).sum()


def loss(objective: Objective, said: Said, share: Share) -> torch.Tensor:
    """Sum the losses of a share's lessons, each times its weight; ``asides`` were added to it."""
    match objective.kind:
        case "sft":
            return (said.losses * share["weights"]).sum()
        case "distillation":
            told = losses.distillation(said.logits, share["teacher"], objective.temperature)
            logged = 1 - objective.teacher_share
            mixed = logged * said.losses + objective.teacher_share * told
            return (mixed * share["weights"]).sum()
        case "dpo":
            return (_dpo(objective.beta, said, share) * share["row_weights"][::2]).sum()
        case "orpo":
            chosen, rejected = said.means[::2], said.means[1::2]
            found = losses.orpo(chosen, rejected, objective.beta) - chosen
            return (found * share["row_weights"][::2]).sum()
        case "kto":
            found = losses.kto(
                said.rows, share["base"], share["is_good"], share["drift"], objective.beta
            )
            kinds = torch.where(
                share["is_good"], objective.desirable_weight, objective.undesirable_weight
            )
            return (found * kinds * share["row_weights"]).sum()


def _dpo(beta: float, said: Said, share: Share) -> torch.Tensor:
    chosen, rejected = said.rows[::2], said.rows[1::2]
    return losses.dpo(chosen, rejected, share["base"][::2], share["base"][1::2], beta)


class Measured:
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

    def add(self, said: Said, share: Share) -> None:
        """Add a share's lessons."""
        alike = {**share, "weights": torch.ones_like(share["weights"])}
        alike["row_weights"] = torch.ones_like(share["row_weights"])
        if self.objective.kind == "sft":
            self.loss += float(said.losses.sum())
            self.count += len(share["labels"])
            return
        self.loss += float(loss(self.objective, said, alike))
        self.count += float(
            len(share["labels"])
            if self.objective.kind == "distillation"
            else whole(self.objective, share)
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


def _alternating(share: Share) -> torch.Tensor:
    return torch.arange(len(share["row_weights"]), device=share["row"].device) % 2 == 0
