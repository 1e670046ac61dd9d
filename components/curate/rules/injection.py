"""Find marks of prompt injection.

The families are those of published attacks (Perez and Ribeiro, arXiv:2211.09527; Greshake et al.,
arXiv:2302.12173; Shen et al., arXiv:2308.03825): overriding instructions, asking for the system
prompt, personas without rules, and forged chat markup. Other attacks have no mark, and harmless
text may have one, so a person reviews them.
"""

import unicodedata

import re2

from components.curate.interaction import Candidate

LONGEST_MARK = 80

_RULES = r"(?:instructions?|prompts?|rules?|directi(?:on|ve)s?|guidelines?|commands|polic(?:y|ies))"
_OVERRIDE = (
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|override|bypass|discard)"
    r"(?: (?:all|any|everything|of|the|your|these|those|about|and|every|in|other))* "
    r"(?:(?:previous|prior|above|earlier|preceding|foregoing|original|initial|system|existing|safety"
    r"|developer|openai(?:['\x{2019}]?s)?|content)(?: (?:and|or) \w+)?"
    rf"(?: (?:system|safety|developer|content|set of))* (?:{_RULES}|programming)\b"
    r"|(?:instructions?|rules?|prompts?|guidelines?) (?:that )?(?:you (?:got|had|have|received|were"
    r"|learned)|(?:given|written) (?:above|before|earlier))"
    r"|(?:above|before|previously)\b"
    r"|(?:that )?you (?:have |were )?(?:learn(?:ed|t)|been told|told)\b)",
    r"\byour new (?:system )?(?:instructions|prompt) (?:is|are)\b",
    r"\bnew (?:system )?instructions ?:",
    r"\bfrom now on ?,? you (?:will|must|shall|are going to) "
    r"(?:ignore|disregard|not follow|no longer follow|obey)\b",
    r"(?:ignorier|vergiss)[^\s.,!?]* (?:\S+ ){0,2}"
    r"(?:vorherig|bisherig|obig|vorangegangen)[^\s.,!?]* "
    r"(?:anweisung|befehl|instruktion|regel)[^\s.,!?]*",
    r"(?:ignor|olvid|esque|dimentic)[^\s.,!?]* (?:\S+ ){0,2}"
    r"(?:instruc|istruzion|instruç|órden)[^\s.,!?]* "
    r"(?:anterior|previ|precedent)[^\s.,!?]*",
    r"(?:ignore|oublie)[^\s.,!?]* (?:\S+ ){0,2}instructions pr[ée]c[ée]dentes",
    r"(?:忽略|无视|無視)[^。\n]{0,8}(?:指令|指示|提示|规则|命令)",
    r"(?:指示|命令|プロンプト)を(?:すべて)?無視",
)
_EXTRACTION = (
    r"\b(?:reveal|show|print|repeat|output|display|leak|disclose|translate|encode|see|copy|dump"
    r"|expose|summari[sz]e|tell me|give me|what(?:['\x{2019}]s| (?:is|are|was|were))) "
    r"(?:(?:me|all|everything|exactly|verbatim|in|of|us) )*(?:your|the) "
    r"(?:(?:full|entire|exact|complete) )?(?:system|initial|starting|hidden|original|secret"
    r"|developer|internal) (?:prompts?|messages?|instructions?)\b",
    r"\b(?:repeat|print|output) (?:all )?(?:of )?(?:everything|all text|the (?:words|text)) "
    r"(?:that is )?above\b",
    r"\bwhat (?:were|are) you (?:told before|instructed to|not supposed to tell)\b",
)
_PERSONA = (
    r"\bdo anything now\b",
    r"\bdeveloper mode (?:output|enabled|v2)\b",
    r"\b(?:enable|activate|enter|simulate|switch to|you are (?:now )?in) (?:\w+ )?"
    r"(?:developer|jailbreak|jailbroken|god|dan|unrestricted) mode\b",
    r"\b(?:you are now|act as|pretend to be|behave as|answer as) (?:an? )?(?:\w+ )?"
    r"(?:jailbroken|unrestricted|unfiltered|uncensored|dan)\b",
    r"\b(?:pretend|imagine|act as if|act like) (?:that )?you (?:have|had) no "
    r"(?:restrictions?|rules?|filters?|guidelines?)\b",
    r"\bbroken? free (?:of|from) the (?:typical )?(?:confines|restrictions|limits)\b",
    r"\b(?:not|never|don['\x{2019}]t|longer) (?:have to )?(?:be )?(?:abide|bound) by (?:\w+ ){0,3}"
    r"(?:rules?|polic(?:y|ies)|guidelines?|ethic\w*|moral\w*|restrictions?)\b",
    r"\b(?:has|have|with|without|free (?:of|from)) (?:no|any|all) "
    r"(?:(?:restrictions?|rules?|\w+) ?,? ?(?:and|or) )?(?:ethical|moral|safety|content) (?:\w+ )?"
    r"(?:restrictions?|rules?|guidelines?|filters?|constraints?|limitations?|code)\b",
)
_MARKUP = (
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>",
    r"\[/?inst\]",
    r"<</?sys>>",
    r"</system>",
    r"<start_of_turn>",
    r"^#{2,} ?system ?(?:prompt)?:",
)
_INVISIBLE = "[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]"


_SPACED = "|".join(f"(?:{form})" for form in (*_OVERRIDE, *_EXTRACTION, *_PERSONA, *_MARKUP))
_OPTIONS = re2.Options()
_OPTIONS.max_mem = 64 << 20  # the default falls back to RE2's slow NFA on long conversations
_OPTIONS.log_errors = False
_MARK = re2.compile("(?im)" + _SPACED.replace(" ?", r"\s*").replace(" ", r"\s+"), _OPTIONS)
"""All marks in one expression, a space matching any white space: RE2 searches in one pass and in
linear time for any text."""

_HIDDEN = re2.compile(_INVISIBLE)

_MARKS = re2.compile(r"(\pM{30})\pM+")
"""No writing puts more than 30 marks on a letter (Unicode's stream-safe format, UAX 15), and Python
sorts them in a time that grows with their square."""


def prompt_injection(candidate: Candidate) -> str | None:
    """Return the first mark of injection in user and tool messages."""
    text = "\n\n".join(candidate.texts("user", "tool"))
    if not text.isascii():
        whole = text.encode("utf-8", "ignore").decode()  # without lone surrogates
        text = _HIDDEN.sub("", unicodedata.normalize("NFKC", _MARKS.sub(r"\1", whole)))
    match = _MARK.search(text)
    return None if match is None else " ".join(str(match.group()).split())[:LONGEST_MARK]
