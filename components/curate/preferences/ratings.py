"""Make pairs of answers to one prompt whose ratings differ by enough."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from components.curate.preferences.reading import Reading
from components.curate.preferences.signal import Completion

Ratings = dict[Completion, list[tuple[float, str]]]
"""The ratings of each answer, from -1 to 1, with the feedback that gave each."""


def collect(readings: Iterable[Reading]) -> Ratings:
    """Gather the ratings of each answer."""
    found: Ratings = defaultdict(list)
    for reading in readings:
        if reading.signal.kind == "rating":
            for one in reading.opinions:
                found[one.completion].append((one.position, reading.signal.feedback_id))
    return found


def pairs(ratings: Ratings, gap: float) -> Iterator[tuple[Completion, Completion, float]]:
    """Pair the best rated answer to a prompt with the worst, the second with the last but one.

    Gives the better, the worse, and by what share of the scale their mean ratings differ. Each
    answer is in one pair at most, so that many answers to one prompt don't outweigh the others.
    """
    by_prompt: dict[str, list[tuple[float, Completion]]] = defaultdict(list)
    for completion, mean in means(ratings).items():
        by_prompt[completion[0]].append((mean, completion))
    for _, ranked in sorted(by_prompt.items()):
        ranked.sort()
        for (low, worse), (high, better) in zip(ranked, reversed(ranked), strict=True):
            if (high - low) / 2 < gap:
                break
            yield better, worse, (high - low) / 2


def means(ratings: Ratings) -> Mapping[Completion, float]:
    """Give each answer's mean rating."""
    return {
        completion: sum(sorted(position for position, _ in given)) / len(given)
        for completion, given in ratings.items()
    }
