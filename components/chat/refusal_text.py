"""Detect texts that only refuse: curation drops such answers, evaluation counts them."""

import re

LONGEST = 400  # characters; a longer text does more than refuse

_REFUSAL = re.compile(
    r"""
    (?: (?:i(?:['\u2019]m|\ am)\ (?:really\ |very\ |so\ |truly\ )?sorry | sorry | (?:my\ )?apologies
      | i\ apologi[sz]e | unfortunately | i\ understand[^.!?]{0,80} )
        (?:\ for\ [^.,!?]{0,40})? [,.!]?\ (?:but\ |however,?\ )? )?
    (?: as\ an?\ (?:ai|artificial|large|language|responsible)[^,.]{0,40},?\ )?
    (?P<core> (?: i\ (?: can(?:not|['\u2019]t|\ not) | am\ (?:unable|not\ able|not\ allowed)\ to
             | (?:will|do|would)\ not(?:\ be\ able\ to)? | must\ (?:decline|refuse)\ to
             | (?:won|don|wouldn)['\u2019]t(?:\ be\ able\ to)? )
      | i['\u2019]m\ (?:unable|not\ able|not\ allowed)\ to | i['\u2019]m\ not\ comfortable\ with
      | it\ (?:is|would\ be)\ (?:not|in)\ ?appropriate\ (?:for\ me\ )?to )
    \ (?: (?:fully|directly|ethically|legally|be\ able\ to)\ )?
    (?: (?:assist|help|aid|support)(?:\ you)?\ (?:with|in)\ (?:that|this|your|such|any|the)\b
      | (?:assist|help)(?:\ you)?(?=[.!]|$)
      | (?:fulfil+|comply|complete|process|satisfy|carry\ out|accommodate|engage)
            \ (?:with\ |in\ )?(?:that|this|your|such|these|the|any)
            \ (?:request|demand|requests|conversation|instruction|prompt|behavio)
      | (?:provide|give|offer|share|generate|create|produce|write|answer|discuss|respond\ to
            |engage\ in|participate\ in|promote|continue)
            \ (?:you\ )?(?:with\ )?
            (?: (?:that|this|such|your)
                \ (?:information|question|request|content|kind|type|topic|conversation)
              | (?:such|that|this)(?=[.,!]|$)
              | (?:any\ )?(?:harmful|illegal|inappropriate|explicit|offensive|hateful|unethical
                    |dangerous|sexual|violent) )
      | do\ (?:that|this|so)(?=[.,!]|$)
      | comply(?=[.,!]|$) ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_STILL_HELPS = re.compile(
    r"\b(?:however|but here|but i can(?!['\u2019]t)|here (?:is|are)|instead"
    r"|i can (?:offer|suggest|tell|give))\b|\n\s*(?:1\.|-|\*)|```",
    re.IGNORECASE,
)


def match_refusal(text: str) -> str | None:
    """Return the refusing words of an English text that only refuses, in lower case, or ``None``.

    "I can't remove a passenger from a reservation" states a fact and is not a refusal; nor is a
    refusal followed by help.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return None
    refusal = _REFUSAL.match(text)
    return None if refusal is None or _STILL_HELPS.search(text) else refusal["core"].lower()
