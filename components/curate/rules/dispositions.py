"""What is done with an interaction that a rule found something in."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, PlainSerializer

from components.schema import Config

Action: TypeAlias = Literal["drop", "hold", "weigh", "flag", "ignore"]


@dataclass(frozen=True, slots=True)
class Disposition:
    """What to do: ``drop``, ``hold`` for a person, ``weigh`` by the factor, ``flag``, ``ignore``.

    What is held is no example until a person releases it; what is flagged is one like any other.
    """

    action: Action
    factor: float = 1.0

    def __str__(self) -> str:
        """Write it as the workload file does."""
        return f"weigh {self.factor:g}" if self.action == "weigh" else self.action


def parse(given: object) -> object:
    """Read ``drop``, ``hold``, ``flag``, ``ignore`` or ``weigh`` and a factor below 1.

    Raises:
        ValueError: It is none of these.
    """
    match given.split() if isinstance(given, str) else given:
        case ["drop" | "hold" | "flag" | "ignore" as action]:
            return Disposition(action)
        case ["weigh", factor] if _is_share(str(factor)):
            return Disposition("weigh", float(str(factor)))
        case Disposition():
            return given
        case _:
            raise ValueError(
                f"wants drop, hold, flag, ignore, or `weigh 0.5` (a factor between 0 and 1), "
                f"found {given!r}"
            )


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


Stated = Annotated[Disposition, BeforeValidator(parse), PlainSerializer(str)]

DROP, HOLD, FLAG = Disposition("drop"), Disposition("hold"), Disposition("flag")


class Dispositions(Config):
    """For each rule, what to do: ``drop``, ``hold``, ``weigh 0.5``, ``flag`` or ``ignore``.

    What can't be read, rendered or learned at all is always dropped.
    """

    cut_off: Stated = DROP
    """Answers that ended at a limit or a filter: they teach to stop in mid-sentence."""

    unknown_tool: Stated = DROP
    """Calls of tools that the request does not offer: to be kept where the log leaves out the tools
    that the application always has."""

    breaks_schema: Stated = DROP
    """Calls whose arguments their tool's JSON Schema forbids."""

    error_text: Stated = DROP
    """Stack traces and error messages in the place of an answer."""

    repetition: Stated = DROP
    """Answers that say the same over and over."""

    prompt_leak: Stated = DROP
    """Answers that repeat a long span of the system message: to be flagged where the answers quote
    from documents that stand there."""

    wrong_language: Stated = DROP
    """Answers in another language than ``languages`` says."""

    refusal: Stated = FLAG
    """Answers that do nothing but refuse, where no tools are offered. Dropping all of them unlearns
    to refuse what should be refused; so it is the workload that says."""

    prompt_injection: Stated = HOLD
    """User text with marks of prompt injection; ``flywheel held`` shows and releases what waits."""
