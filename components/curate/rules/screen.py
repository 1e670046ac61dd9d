"""Apply the rules to an interaction, with the workload's action for each."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from math import prod

from components.curate.interaction import Candidate
from components.curate.rules import bad_answers, injection, language, structure
from components.curate.settings import Disposition, Dispositions, Languages

Rule = Callable[[Candidate], str | None]

UNFIT: tuple[Rule, ...] = (
    structure.unsupported_content,
    structure.arguments_not_json,
    bad_answers.empty_answer,
    structure.malformed_acceptable,
    structure.malformed_history,
)
"""Always objections, in this order: later rules rely on earlier ones."""

FAULTS: tuple[Rule, ...] = (
    bad_answers.cut_off,
    structure.unknown_tool,
    structure.breaks_schema,
    bad_answers.error_text,
    bad_answers.refusal,
    bad_answers.repetition,
    bad_answers.prompt_leak,
    injection.prompt_injection,
)
"""The workload sets each rule's action: the field of ``Dispositions`` with the rule's name."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A rule's finding in an interaction that stays an example.

    Its weight is multiplied by ``factor``; ``mark`` describes the finding, and quotes no user
    except for the mark of an injection.
    """

    rule: str
    factor: float
    mark: str


@dataclass(frozen=True, slots=True)
class Screened:
    """Result of the rules: an objection with its mark, or flags, or nothing.

    A held interaction can be released by a person.
    """

    objection: str | None = None
    mark: str | None = None
    is_held: bool = False
    flags: tuple[Flag, ...] = ()

    @property
    def weight(self) -> float:
        """The example's weight."""
        return prod(flag.factor for flag in self.flags)


NOTHING_FOUND = Screened()


def screen(
    candidate: Candidate,
    dispositions: Dispositions,
    *,
    max_prompt_chars: int,
    languages: Languages,
    instructions: Container[str] | None = None,
) -> Screened:
    """Apply the rules in order until one objects; pure.

    ``instructions`` are the workload's, as ``bad_answers.instructions`` finds them.
    """
    for rule in UNFIT:
        if (mark := rule(candidate)) is not None:
            return Screened(rule.__name__, mark)
    if (mark := structure.too_long(candidate, max_prompt_chars)) is not None:
        return Screened("too_long", mark)
    languages_rule = partial(language.wrong_language, languages=languages)
    faults = {rule.__name__: rule for rule in FAULTS} | {
        "prompt_leak": partial(bad_answers.prompt_leak, fixed=instructions),
        "wrong_language": languages_rule,
    }
    flags: list[Flag] = []
    for name, rule in faults.items():
        disposition: Disposition = getattr(dispositions, name)
        if disposition.action == "ignore" or (mark := rule(candidate)) is None:
            continue
        is_released = disposition.action == "hold" and name in candidate.released
        if disposition.action in ("drop", "hold") and not is_released:
            return Screened(name, mark, disposition.action == "hold", tuple(flags))
        flags.append(Flag(name, disposition.factor, mark))
    return Screened(flags=tuple(flags))
