"""Say how likely a model finds each continuation of a context: what multiple choice is scored by.

All requests are one tree, so a context is read once for all its choices, and so is what several
contexts begin with. The vocabulary's logits are computed only where a continuation's tokens are
told; most of a prompt has none.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - this module is itself imported late

from components.evaluate.prefix_cache import forward, tree
from components.evaluate.prefix_cache.tree import Ints, Row, Tree

if TYPE_CHECKING:
    from components.evaluate.prefix_cache.forward import Model, Reading


@dataclass(frozen=True, slots=True)
class _Told:
    """Tokens that continuations have, sorted by the node that tells them: one place each, all."""

    nodes: Ints
    tokens: Ints
    requests: Ints


def likelihoods(
    model: "Model",
    requests: Sequence[tuple[Row, Row]],
    *,
    window: int,
    room: int,
    report: Callable[[int], None],
) -> list[tuple[float, bool]]:
    """Score continuations.

    Args:
        model: A causal language model that ``forward.can_pack``.
        requests: A context and its continuation each, token ids, neither of them empty.
        window: The most tokens that the model sees; a longer context loses its beginning.
        room: How many tokens are read at once.
        report: Called after each pack with the number of requests that are done.

    Returns:
        Of each request the sum of the log-probabilities of its continuation's tokens (nats), and
        whether each was the likeliest.

    Raises:
        ValueError: A context or continuation is empty, or a continuation longer than the window.
    """
    rows = [_row(context, continuation, window) for context, continuation in requests]
    order = sorted(range(len(rows)), key=lambda number: tuple(rows[number]))
    grown = tree.grow([rows[number] for number in order])
    told = _told(grown, order, [continuation for _, continuation in requests])
    sums, likeliest = np.zeros(len(requests)), np.ones(len(requests), np.bool_)
    ends = np.sort(grown.leaves)
    for seen in forward.read(model, grown, np.unique(told.nodes), room):
        _score(seen, told, sums, likeliest)
        report(int(np.searchsorted(ends, seen.pack.stop)))
    return list(zip(sums.tolist(), likeliest.tolist(), strict=True))


def _row(context: Row, continuation: Row, window: int) -> Row:
    """Give what the model reads: all but the last token, whose likelihood those before it tell."""
    if not context or not 0 < len(continuation) <= window:
        raise ValueError(
            f"scoring a continuation of {len(continuation)} tokens after {len(context)}: it wants "
            f"one token before it, and to have between 1 and {window} of its own"
        )
    return [*context, *continuation][-(window + 1) : -1]


def _told(tree: Tree, order: Sequence[int], continuations: Sequence[Row]) -> _Told:
    nodes: list[int] = []
    tokens: list[int] = []
    requests: list[int] = []
    for place, number in enumerate(order):
        continuation = continuations[number]
        nodes += tree.last(place, len(continuation))
        tokens += continuation
        requests += [number] * len(continuation)
    sort = np.argsort(np.array(nodes, np.int64), kind="stable")
    return _Told(*(np.array(column, np.int64)[sort] for column in (nodes, tokens, requests)))


def _score(seen: "Reading", told: _Told, sums: np.ndarray, likeliest: np.ndarray) -> None:
    """Add to the requests' scores what one pack tells."""
    first, last = np.searchsorted(told.nodes, [seen.pack.start, seen.pack.stop])
    places = torch.from_numpy(np.searchsorted(seen.nodes, told.nodes[first:last]))
    tokens = torch.from_numpy(told.tokens[first:last])
    device = seen.logits.device
    at = seen.logits[places.to(device), tokens.to(device)]
    logs = (at - seen.logits.logsumexp(-1)[places.to(device)]).double().cpu().numpy()
    best = seen.logits.argmax(-1).cpu()[places].eq(tokens).numpy()
    np.add.at(sums, told.requests[first:last], logs)
    np.logical_and.at(likeliest, told.requests[first:last], best)
