"""The objectives' formulas, on the log-likelihoods of whole answers or of their tokens.

All are pure, and give one value an answer, pair or token; whoever calls them weighs and sums.
Imported late, since it loads torch.
"""

import torch  # noqa: TID253 - this module is itself imported late
from torch.nn.functional import cross_entropy, logsigmoid  # noqa: TID253 - as above


def sft(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Give each token's negative log-likelihood ``[tokens]`` from ``logits [tokens, words]``."""
    return cross_entropy(logits, labels, reduction="none")


def distillation(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Give each token's divergence from the teacher, KL(teacher || student), ``[tokens]``.

    Times the square of the temperature, so that gradients keep their size (Hinton et al.,
    arXiv:1503.02531, section 2). Both logits are ``[tokens, words]``.
    """
    student = (logits / temperature).log_softmax(-1)
    wanted = (teacher / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - student)).sum(-1) * temperature**2


def dpo(
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


def orpo(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> torch.Tensor:
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


def kto(
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


def drift_of(said: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Estimate KL(model || base), a number, from answers that stand under other requests.

    The same section; ``said`` and ``base`` are their log-likelihoods.
    """
    return (said - base).mean().clamp(min=0)
