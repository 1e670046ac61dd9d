"""Find answers that do nothing but refuse."""

import re

from components.curate.candidate import Candidate

LONGEST = 400
"""Characters: a longer answer says more than that it refuses."""

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
_HELPS_ON = re.compile(
    r"\b(?:however|but here|but i can(?!['\u2019]t)|here (?:is|are)|instead"
    r"|i can (?:offer|suggest|tell|give))\b|\n\s*(?:1\.|-|\*)|```",
    re.IGNORECASE,
)


def refusal(candidate: Candidate) -> str | None:
    """Find answers that as a whole refuse, saying nothing of what was asked.

    "I can't remove a passenger from a reservation" says how things are and is no such refusal. Nor
    is any answer where tools are offered: to say that none of them fits is what is to be learned
    there. What a person wrote as the right answer is right.
    """
    text = candidate.answer.text.strip()
    if candidate.tools or candidate.answer.calls or candidate.is_corrected or len(text) > LONGEST:
        return None
    found = _REFUSAL.match(text)
    return None if found is None or _HELPS_ON.search(text) else found["core"].lower()
