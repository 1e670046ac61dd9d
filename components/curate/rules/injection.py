"""Find text that tries to take the model over: marks of prompt injection.

The families are those that published attacks share (Perez and Ribeiro, arXiv:2211.09527; Greshake
et al., arXiv:2302.12173; Shen et al., arXiv:2308.03825): overriding instructions, asking for the
system prompt, personas without rules, and forged chat markup. Others bear no mark, and harmless
text may bear one, which is why a person looks.
"""

import re
import unicodedata

from components.curate.candidate import Candidate

LONGEST_MARK = 80

_MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("ignor", "disregard", "forget", "overrid", "bypass", "discard"),
        r"""
        \b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|override|bypass|discard)
        (?:\s+(?:all|any|everything|of|the|your|these|those|about|and|every|in|other))*\s+
        (?: (?:previous|prior|above|earlier|preceding|foregoing|original|initial|system|existing
                |safety|developer|openai(?:['\u2019]?s)?|content)
            (?:\s+(?:and|or)\s+\w+)?(?:\s+(?:system|safety|developer|content|set\s+of))*\s+
            (?:instructions?|prompts?|rules?|directi(?:on|ve)s?|guidelines?|commands
                |polic(?:y|ies)|programming)\b
          | (?:instructions?|rules?|prompts?|guidelines?)\s+(?:that\s+)?
            (?:you\s+(?:got|had|have|received|were|learned)
                |(?:given|written)\s+(?:above|before|earlier))
          | (?:above|before|previously)\b
          | (?:that\s+)?you\s+(?:have\s+|were\s+)?(?:learn(?:ed|t)|been\s+told|told)\b )
        """,
    ),
    (
        ("from now on", "new instructions", "new system", "new prompt"),
        r"""
        \byour\s+new\s+(?:system\s+)?(?:instructions|prompt)\s+(?:is|are)\b
        | \bnew\s+(?:system\s+)?instructions\s*:
        | \bfrom\s+now\s+on\s*,?\s+you\s+(?:will|must|shall|are\s+going\s+to)\s+
            (?:ignore|disregard|not\s+follow|no\s+longer\s+follow|obey)\b
        """,
    ),
    (
        ("vergiss", "ignor", "olvid", "esque", "dimentic", "oublie", "忽略", "无视", "無視"),
        r"""
        (?:ignorier|vergiss)\w*\s+(?:\w+\s+){0,2}(?:vorherig|bisherig|obig|vorangegangen)\w*\s+
            (?:anweisung|befehl|instruktion|regel)\w*
        | (?:ignor|olvid|esque|dimentic)\w*\s+(?:\w+\s+){0,2}(?:instruc|istruzion|instruç|órden)
            \w*\s+(?:anterior|previ|precedent)\w*
        | (?:ignore|oublie)\w*\s+(?:\w+\s+){0,2}instructions\s+pr[ée]c[ée]dentes
        | (?:忽略|无视|無視)[^。\n]{0,8}(?:指令|指示|提示|规则|命令)
        | (?:指示|命令|プロンプト)を(?:すべて)?無視
        """,
    ),
    (
        ("prompt", "instruction", " message"),
        r"""
        \b(?:reveal|show|print|repeat|output|display|leak|disclose|translate|encode|see|copy|dump
            |expose|summari[sz]e|tell\s+me|give\s+me|what(?:['\u2019]s|\s+(?:is|are|was|were)))\s+
        (?:(?:me|all|everything|exactly|verbatim|in|of|us)\s+)*(?:your|the)\s+
        (?:(?:full|entire|exact|complete)\s+)?
        (?:system|initial|starting|hidden|original|secret|developer|internal)\s+
        (?:prompts?|messages?|instructions?)\b
        """,
    ),
    (
        (" above", "you told", "you instructed", "not supposed to tell"),
        r"""
        \b(?:repeat|print|output)\s+(?:all\s+)?(?:of\s+)?
            (?:everything|all\s+text|the\s+(?:words|text))\s+(?:that\s+is\s+)?above\b
        | \bwhat\s+(?:were|are)\s+you\s+
            (?:told\s+before|instructed\s+to|not\s+supposed\s+to\s+tell)\b
        """,
    ),
    (
        (" mode", "anything now", "jailbr", "unrestricted", "unfiltered", "uncensored", " dan"),
        r"""
        \bdo\s+anything\s+now\b
        | \bdeveloper\s+mode\s+(?:output|enabled|v2)\b
        | \b(?:enable|activate|enter|simulate|switch\s+to|you\s+are\s+(?:now\s+)?in)\s+(?:\w+\s+)?
            (?:developer|jailbreak|jailbroken|god|dan|unrestricted)\s+mode\b
        | \b(?:you\s+are\s+now|act\s+as|pretend\s+to\s+be|behave\s+as|answer\s+as)\s+
            (?:an?\s+)?(?:\w+\s+)?(?:jailbroken|unrestricted|unfiltered|uncensored|dan)\b
        """,
    ),
    (
        ("you have no ", "you had no ", "free of the", "free from the", "abide by", "bound by"),
        r"""
        \b(?:pretend|imagine|act\s+as\s+if|act\s+like)\s+(?:that\s+)?you\s+(?:have|had)\s+no\s+
            (?:restrictions?|rules?|filters?|guidelines?)\b
        | \bbroken?\s+free\s+(?:of|from)\s+the\s+(?:typical\s+)?(?:confines|restrictions|limits)\b
        | \b(?:not|never|don['\u2019]t|longer)\s+(?:have\s+to\s+)?(?:be\s+)?
            (?:abide|bound)\s+by\s+(?:\w+\s+){0,3}
            (?:rules?|polic(?:y|ies)|guidelines?|ethic\w*|moral\w*|restrictions?)\b
        """,
    ),
    (
        ("ethical ", "moral ", "safety ", "content "),
        r"""
        \b(?:has|have|with|without|free\s+(?:of|from))\s+(?:no|any|all)\s+
            (?:(?:restrictions?|rules?|\w+)\s*,?\s*(?:and|or)\s+)?
            (?:ethical|moral|safety|content)\s+(?:\w+\s+)?
            (?:restrictions?|rules?|guidelines?|filters?|constraints?|limitations?|code)\b
        """,
    ),
    (
        ("<|", "inst]", "sys>", "</system>", "<start_of", "##"),
        r"""
        <\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>
        | \[/?inst\] | <</?sys>> | </system> | <start_of_turn> | ^\#{2,}\s*system\s*(?:prompt)?:
        """,
    ),
)
"""Each form with what is in every text that it matches: that is looked up much faster."""

_FORMS = tuple(
    (stems, re.compile(form, re.IGNORECASE | re.MULTILINE | re.VERBOSE)) for stems, form in _MARKS
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]")


def prompt_injection(candidate: Candidate) -> str | None:
    """Find a mark of injection in what users wrote or tools gave back; give the mark itself."""
    text = "\n\n".join(candidate.said("user", "tool"))
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    lowered = text.lower()
    for stems, form in _FORMS:
        if any(stem in lowered for stem in stems) and (found := form.search(text)) is not None:
            return " ".join(found.group().split())[:LONGEST_MARK]
    return None
