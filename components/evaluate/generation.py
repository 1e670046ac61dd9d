"""How an answer is written, whatever engine writes it: the likeliest token, each time."""

import re
from collections.abc import Iterable, Mapping

_INERT = re.compile(
    "_from_model|transformers_version|(bos|eos|pad)_token_id|use_cache|output_|"
    "do_sample|temperature|top_|min_p|max_"
)
"""Begin the names of generation settings that a model may be shipped with and that leave its
greedy answers as they are: tokens that are handled, sampling, and lengths."""


def require_greedy(settings: Mapping[str, object]) -> None:
    """Refuse to sample; ``settings`` are as lm-eval normalizes them.

    Raises:
        ValueError: Answers are to be sampled.
    """
    if settings["do_sample"]:
        raise ValueError("a holdout is answered greedily, so that its scores are repeatable")


def swaying(shipped: Iterable[str]) -> list[str]:
    """Name the settings that may sway a greedy answer, such as a repetition penalty."""
    return sorted(name for name in shipped if _INERT.match(name) is None)
