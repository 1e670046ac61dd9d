"""Blank what people wrote on versions, where it is about somebody who is erased."""

from collections.abc import Callable

from components.register import registry
from components.register.registry import APPROVER_TAG, COMMENT_TAG, ROLLED_BACK_TAG

ERASED = "(erased)"
"""Stands where a text was: that a version was rolled back must still be seen."""

TEXTS = (COMMENT_TAG, ROLLED_BACK_TAG)


def forget(
    is_about: Callable[[str], bool], *, workload: str | None = None, names: bool = False
) -> int:
    """Blank the tags of versions that are about the subject; return how many. Safe to repeat.

    Args:
        is_about: Tells whether a text is.
        workload: Whose versions; those of all when left out.
        names: Whether an approver of that name is meant, too.
    """
    wanted = (*TEXTS, APPROVER_TAG) if names else TEXTS
    blanked = 0
    for name in registry.names() if workload is None else [workload]:
        for number, tags in registry.tagged(name).items():
            about = [key for key in wanted if key in tags and is_about(tags[key])]
            registry.tag(name, number, dict.fromkeys(about, ERASED))
            blanked += len(about)
    return blanked
