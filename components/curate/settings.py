"""The ``curate`` section of a workload's file."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from components.curate.redaction.patterns import Kind
from components.curate.redaction.presidio import Presidio
from components.curate.rules.language import Languages
from components.schema import ClientShares, Config

SplitBy = Literal["tools", "conversation", "user"]


class Replay(Config):
    """Rows of other sets among those trained on, so that what they teach is not forgotten."""

    sources: list[Path] = Field(min_length=1)
    """Snapshot folders, whose training rows are taken; Parquet files with their columns; or JSONL
    files, ``.gz`` or not, of ``messages`` that end in the answer, and ``tools``."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows trained on that are replayed, if the sources have so many."""


class Balance(Config):
    """What is left out of the training side; without any of it, nothing is."""

    per_label: int | None = Field(default=None, ge=1)
    """At most so many rows with equal labels: the tools they call, or a short answer's text."""

    per_client: int | None = Field(default=None, ge=1)
    """At most so many rows of one client."""

    max_rows: int | None = Field(default=None, ge=1)
    """At most so many rows in all, replayed ones among them."""

    max_tokens: int | None = Field(default=None, ge=1)
    """At most so many tokens in all, prompts and answers, by the base's tokenizer."""

    temperature: float = Field(default=1.0, ge=1)
    """How a budget is shared out between clients: 1 gives each a part as large as its rows, higher
    gives small clients more (n rows weigh n to the power of 1 / temperature), up to equal parts."""

    replay: Replay | None = None
    """Rows of other sets to train on besides."""

    @model_validator(mode="after")
    def _shares_out_a_budget(self) -> "Balance":
        if self.temperature > 1 and self.max_rows is None and self.max_tokens is None:
            raise ValueError("temperature shares out a budget: set max_rows or max_tokens")
        return self


THRESHOLD = 0.8


class NearDuplicates(Config):
    """When two requests count as one."""

    jaccard: float = Field(default=THRESHOLD, gt=0, le=1)
    """Share of the word triples of two conversations that both have; a lower one merges more rows,
    and keeps more of them from standing on both sides."""


class Overlap(Config):
    """What is too much of a tested text in a row that is trained on."""

    words: int = Field(default=8, ge=3)
    """Words of a run that two texts have in common; shorter runs find more that means nothing,
    longer ones miss what was edited. Texts of fewer words are not compared."""

    share: float = Field(default=0.2, gt=0, le=1)
    """Share of the shorter text's runs; at 1 a row is left out only if one is part of the other.
    ``0.2`` finds 98 % of GSM8K's questions with one word in ten changed, ``0.5`` 37 %."""

    paraphrases: float | None = Field(default=None, gt=0, le=1)
    """Also leave out rows whose words are those of a tested text, in whatever order: from this
    cosine of TF-IDF weights on. ``0.45`` finds 84 % of GSM8K's rephrasings, of which runs of words
    find none, and takes 1.5 % of other questions like them for one. Not looked at if unset."""

    guards: tuple[str, ...] = ()
    """JSONL or Parquet files whose texts guard tasks test on; relative to the workload file."""


class Preferences(Config):
    """How far people's feedback moves what is learned."""

    actor_cap: float = Field(default=0.1, gt=0, le=1)
    """Most of the weight of all signals that one actor may have; what is over it is held back.
    With few actors it is twice an even share, where that is more."""

    trusted: tuple[str, ...] = ()
    """Actors who are never held back, such as your labellers and automatic checks."""

    burst_minutes: int = Field(default=10, ge=1)
    """How long a window is in which more signals than usual, or more new actors, stand out."""

    rating_gap: float = Field(default=0.25, gt=0, le=1)
    """Two answers to one prompt are a pair if their ratings differ by this share of the scale."""

    bad_outcomes: tuple[str, ...] = ("escalated", "abandoned", "error", "timeout", "refunded")
    """Outcomes that mean failure when they are true; all others mean success."""

    lift: float = Field(default=1.5, ge=1, le=10)
    """How many times more the best liked examples weigh than unjudged ones, and the worst less."""

    match_length: bool = False
    """Weigh pairs so that those whose longer answer won count no more than those whose shorter
    one did: people tend to choose the longer answer for its length."""


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


class Redaction(Config):
    """What may stay as it was logged, and what takes the place of the rest of what is found."""

    replace: Literal["surrogates", "placeholders"] = "surrogates"
    """What stands in rows to train and test on: made-up values of the same form, such as other card
    numbers, as a served model reads real ones; or ``<CARD_1>``, which is easier to copy."""

    seed: int | None = Field(default=None, ge=0)
    """Draws surrogates from this number instead of random keys. Who knows it and guesses a value
    can confirm it: for public logs only, where two homes should have the same rows."""

    off: tuple[Kind, ...] = ()
    """Kinds that stay, such as ``ip`` where the workload is about addresses of machines."""

    allow: tuple[str, ...] = ()
    """Values that stay: ``support@acme.com``, or all of a domain with ``@acme.com``."""

    allow_patterns: tuple[str, ...] = Field(default=())
    """Regular expressions of values that stay; they must match the whole value."""

    presidio: Presidio | None = None
    """Ask Presidio, too: a hundred times slower, but with a language model it finds who and what is
    only mentioned."""

    @field_validator("allow_patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"is no regular expression: {pattern!r} ({error})") from error
        return patterns


@dataclass(frozen=True, slots=True)
class Allowed:
    """What ``Redaction`` says, compiled."""

    kinds: frozenset[Kind]
    values: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def by(cls, settings: Redaction) -> "Allowed":
        """Compile a workload's settings."""
        return cls(
            frozenset(settings.off),
            frozenset(one.lower() for one in settings.allow),
            tuple(re.compile(one) for one in settings.allow_patterns),
        )

    def value(self, text: str) -> bool:
        """Say if a value stays: by itself, by its domain, or by a pattern."""
        lowered = text.lower()
        domain = "@" + lowered.rpartition("@")[2] if "@" in lowered else lowered
        return (
            lowered in self.values
            or domain in self.values
            or any(pattern.fullmatch(text) for pattern in self.patterns)
        )


class Rules(Config):
    """What a workload's examples must be, and how many are held out."""

    max_prompt_chars: int = Field(default=16_000, ge=100)
    """Longer prompts (as rendered, tools included) are left out: they cost memory and time."""

    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the groups that are tested on; raising it draws only groups that are new."""

    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the groups to tune on: neither trained on nor tested on, they are what recipes are
    compared on (``flywheel evaluate``, ``search``), so that the holdout need not be looked at; like
    ``holdout_share`` it draws only groups that are new. 0 trains on them, where labels are scarce.
    """

    holdout_per_cluster: int | None = Field(default=None, ge=1)
    """How many requests of one cluster (a conversation, a user, or what else ties them) are tested
    on; the rest of that cluster's held-out ones are left out. The gate needs the fewer requests the
    fewer a cluster can have; null tests on all."""

    split_by: SplitBy = "tools"
    """What the holdout shows: ``tools`` never seen in training (requests without tools go by
    conversation); ``conversation`` for an agent whose tools are always the same; ``user`` for
    people never seen, where the log says who asked (the rest goes by conversation)."""

    most_lost: float = Field(default=0.3, gt=0, le=1, exclude=True)
    """Share of the different requests that one rule may leave out before a person is asked, copies
    and what people or this file leave out not counted; ``1`` never asks. It changes no row, so it
    is no part of what a snapshot is named by."""

    languages: Languages = "any"
    """What answers are to be written in: a list of ISO 639 codes, or ``as_asked`` for the language
    of the question; ``any`` looks at none. Short answers count as right."""

    rules: Dispositions = Field(default_factory=Dispositions)
    """What is done with what the rules of quality find, rule by rule."""

    near: NearDuplicates = Field(default_factory=NearDuplicates)
    """Which requests count as asked before."""

    overlap: Overlap = Field(default_factory=Overlap)
    """What is not trained on because it is tested on."""

    preferences: Preferences = Field(default_factory=Preferences)
    """What feedback comes to: pairs, labels and weights, and whom it takes more than one for."""

    redaction: Redaction = Field(default_factory=Redaction)
    """What personal data and secrets may stay, and what takes the place of the others."""

    balance: Balance = Field(default_factory=Balance)
    """How much is trained on, and of what: caps, budgets, and rows replayed from other sets."""

    clients: ClientShares = Field(default_factory=ClientShares)
    """How much of the sides a client may have that came after the workload's first one."""

    @model_serializer(mode="wrap")
    def _without_no_cap(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is not set, so that snapshots keep the keys they had without it."""
        fields: dict[str, object] = handler(self)
        if self.clients == ClientShares():
            fields.pop("clients", None)
        if self.holdout_per_cluster is None:
            fields.pop("holdout_per_cluster", None)
        return fields

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> "Rules":
        if self.holdout_share + self.validation_share >= 1:
            raise ValueError("holdout_share and validation_share leave nothing to train on")
        return self
