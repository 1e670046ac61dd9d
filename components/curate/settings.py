"""The ``curate`` section of a workload's file."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from components.curate.redaction.patterns import Kind
from components.schema import ClientShares, Config

SplitBy = Literal["tools", "conversation", "user"]

Languages: TypeAlias = (
    Literal["any", "as_asked"]
    | tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...]
)


class Replay(Config):
    """Rows of other sets to train on, against forgetting what they teach."""

    sources: list[Path] = Field(min_length=1)
    """Snapshot folders (their training rows), Parquet files with the same columns, or JSONL files,
    optionally ``.gz``, of ``messages`` that end with the answer, and ``tools``."""

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of replayed rows among the training rows, as far as the sources have enough."""


class Balance(Config):
    """Caps and budgets of the training side; unset ones leave nothing out."""

    per_label: int | None = Field(default=None, ge=1)
    """Maximum rows per label: the called tools, or a short answer's text."""

    per_client: int | None = Field(default=None, ge=1)
    """Maximum rows per client."""

    max_rows: int | None = Field(default=None, ge=1)
    """Maximum rows in total, including replayed ones."""

    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens in total, prompts and answers, by the base's tokenizer."""

    temperature: float = Field(default=1.0, ge=1)
    """How a budget is divided between clients: at 1 in proportion to their rows; higher values
    favour small clients (n rows weigh n to the power of 1 / temperature), up to equal parts."""

    replay: Replay | None = None
    """Rows of other sets to add."""

    @model_validator(mode="after")
    def _shares_out_a_budget(self) -> "Balance":
        if self.temperature > 1 and self.max_rows is None and self.max_tokens is None:
            raise ValueError("temperature divides a budget: set max_rows or max_tokens")
        return self


THRESHOLD = 0.8


class NearDuplicates(Config):
    """When two requests count as one."""

    jaccard: float = Field(default=THRESHOLD, gt=0, le=1)
    """Share of common word triples of two conversations; a lower value merges more rows, and keeps
    more of them on one side."""


class Overlap(Config):
    """How much of a tested text a training row may contain."""

    words: int = Field(default=8, ge=3)
    """Words of a common n-gram; shorter ones find more coincidences, longer ones miss edited texts.
    Texts of fewer words are not compared."""

    share: float = Field(default=0.2, gt=0, le=1)
    """Share of the shorter text's n-grams; at 1 a row is left out only if one text contains the
    other. ``0.2`` finds 98 % of GSM8K's questions with one word in ten changed, ``0.5`` 37 %."""

    paraphrases: float | None = Field(default=None, gt=0, le=1)
    """Also leave out rows with a tested text's words in any order: from this cosine of TF-IDF
    weights. ``0.45`` finds 84 % of GSM8K's rephrasings (n-grams find 0 %), with 1.5 % false
    positives among similar questions. Off if unset."""

    guards: tuple[str, ...] = ()
    """JSONL or Parquet files with guard tasks' texts; relative to the workload file."""


class Preferences(Config):
    """How far people's feedback moves training."""

    actor_cap: float = Field(default=0.1, gt=0, le=1)
    """One actor's maximum share of all signals' weight; the excess is held back. With few actors it
    is twice an even share, if that is more."""

    trusted: tuple[str, ...] = ()
    """Actors never held back, such as your labellers and automatic checks."""

    lift: float = Field(default=1.5, ge=1, le=10)
    """Weight of the best liked examples relative to unjudged ones; the worst weigh its inverse."""


Action: TypeAlias = Literal["drop", "hold", "weigh", "flag", "ignore"]


@dataclass(frozen=True, slots=True)
class Disposition:
    """The action on a finding: ``drop``, ``hold``, ``weigh`` by the factor, ``flag``, ``ignore``.

    A held interaction becomes an example when a person releases it; a flagged one is an example.
    """

    action: Action
    factor: float = 1.0

    def __str__(self) -> str:
        return f"weigh {self.factor:g}" if self.action == "weigh" else self.action


def parse(value: object) -> object:
    """Parse ``drop``, ``hold``, ``flag``, ``ignore`` or ``weigh`` with a factor below 1."""
    match value.split() if isinstance(value, str) else value:
        case ["drop" | "hold" | "flag" | "ignore" as action]:
            return Disposition(action)
        case ["weigh", factor] if _is_share(str(factor)):
            return Disposition("weigh", float(str(factor)))
        case Disposition():
            return value
        case _:
            raise ValueError(
                f"expected drop, hold, flag, ignore, or `weigh 0.5` (a factor between 0 and 1), "
                f"found {value!r}"
            )


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


Stated = Annotated[Disposition, BeforeValidator(parse), PlainSerializer(str)]

DROP, HOLD, FLAG = Disposition("drop"), Disposition("hold"), Disposition("flag")


class Dispositions(Config):
    """The action for each rule: ``drop``, ``hold``, ``weigh 0.5``, ``flag`` or ``ignore``.

    Interactions that can't be parsed, rendered or learned are always dropped.
    """

    cut_off: Stated = DROP
    """Answers ended by a limit or a filter: they teach to stop in mid-sentence."""

    unknown_tool: Stated = DROP
    """Calls of tools that the request does not offer; keep them if the log omits the application's
    fixed tools."""

    breaks_schema: Stated = DROP
    """Calls whose arguments violate their tool's JSON Schema."""

    error_text: Stated = DROP
    """Stack traces and error messages instead of an answer."""

    repetition: Stated = DROP
    """Answers that loop."""

    prompt_leak: Stated = DROP
    """Answers that repeat a long span of the system message; flag them if answers quote documents
    from there."""

    wrong_language: Stated = DROP
    """Answers in a language outside ``languages``."""

    refusal: Stated = FLAG
    """Pure refusals, where no tools are offered. Dropping all of them unlearns to refuse what
    should be refused, so the workload decides."""

    prompt_injection: Stated = HOLD
    """User text with marks of prompt injection; ``flywheel held`` shows and releases held rows."""


Entity = Literal[
    "PERSON",
    "LOCATION",
    "PHONE_NUMBER",
    "US_PASSPORT",
    "US_DRIVER_LICENSE",
    "US_ITIN",
    "UK_NHS",
    "MEDICAL_LICENSE",
]

NEED_A_MODEL = frozenset({"PERSON", "LOCATION"})


class Presidio(Config):
    """Entities to find with Presidio; needs ``pip install 'lora-flywheel[presidio]'``."""

    entities: tuple[Entity, ...] = ("PERSON",)
    """``LOCATION`` redacts every town and country, including those that a tool needs."""

    model: str | None = None
    """A spaCy model for ``PERSON`` and ``LOCATION``: its package's name, or its folder."""

    language: str = "en"
    """Language of the recognizers."""

    @model_validator(mode="after")
    def _is_installed(self) -> "Presidio":
        if importlib.util.find_spec("presidio_analyzer") is None:
            raise ValueError("Presidio is not installed: pip install 'lora-flywheel[presidio]'")
        if self.model is None and (entities := NEED_A_MODEL.intersection(self.entities)):
            raise ValueError(f"{', '.join(sorted(entities))} needs a spaCy model: set model")
        if self.model is not None and not _exists(self.model):
            raise ValueError(f"model {self.model} is neither a package nor a folder")
        return self


def _exists(model: str) -> bool:
    return Path(model).is_dir() or (
        model.isidentifier() and importlib.util.find_spec(model) is not None
    )


class Redaction(Config):
    """Values that stay as logged, and the replacement of the others."""

    replace: Literal["surrogates", "placeholders"] = "surrogates"
    """Replacement in training and test rows: made-up values of the same form, such as other card
    numbers, as a served model reads real ones; or ``<CARD_1>``, which is easier to copy."""

    seed: int | None = Field(default=None, ge=0)
    """Draws surrogates from this number instead of random keys. Anyone who knows it can confirm a
    guessed value: for public logs only, where two homes should have the same rows."""

    off: tuple[Kind, ...] = ()
    """Kinds that stay, such as ``ip`` if the workload is about machine addresses."""

    allow: tuple[str, ...] = ()
    """Values that stay: ``support@acme.com``, or a whole domain with ``@acme.com``."""

    allow_patterns: tuple[str, ...] = ()
    """Regular expressions of values that stay, matched against the whole value."""

    presidio: Presidio | None = None
    """Also run Presidio: a hundred times slower, but with a language model it finds people and
    places that are only mentioned."""

    @field_validator("allow_patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"invalid regular expression {pattern!r} ({error})") from error
        return patterns


@dataclass(frozen=True, slots=True)
class Allowed:
    """The allow lists of ``Redaction``, compiled."""

    kinds: frozenset[Kind]
    values: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def by(cls, settings: Redaction) -> "Allowed":
        """Compile a workload's settings."""
        return cls(
            frozenset(settings.off),
            frozenset(value.lower() for value in settings.allow),
            tuple(re.compile(pattern) for pattern in settings.allow_patterns),
        )

    def value(self, text: str) -> bool:
        """Return whether a value stays: listed itself or by domain, or by a pattern."""
        lowered = text.lower()
        domain = "@" + lowered.rpartition("@")[2] if "@" in lowered else lowered
        return (
            lowered in self.values
            or domain in self.values
            or any(pattern.fullmatch(text) for pattern in self.patterns)
        )


MAX_ROWS = 1_000_000
"""Rows that a curation holds in 4 GB; more than a training of adapters can use."""


class Rules(Config):
    """Conditions on a workload's examples, and the split."""

    at_most: int | None = Field(default=MAX_ROWS, ge=1)
    """Interactions that are curated, so that memory and time don't grow with the log: all with
    feedback, and of the others a sample by the hash of their ids, which a growing log changes
    little by little; null curates all, in 2 to 4 KB of memory each."""

    max_prompt_chars: int = Field(default=16_000, ge=100)
    """Longer prompts (rendered, with tools) are left out: they cost memory and time."""

    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of groups in the holdout; raising it draws only from new groups."""

    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of groups to tune on: neither trained nor tested on, recipes are compared on them
    (``flywheel evaluate``, ``search``), which spares the holdout; like ``holdout_share`` it draws
    only from new groups. 0 trains on them, where labels are scarce.
    """

    holdout_per_cluster: int | None = Field(default=None, ge=1)
    """Maximum tested requests of one cluster (a conversation, a user, or whatever else ties them);
    the cluster's other held-out requests are left out. The smaller the clusters, the fewer requests
    the gate needs; null tests on all."""

    split_by: SplitBy = "tools"
    """What is unseen in training: ``tools`` (requests without tools are split by conversation);
    ``conversation``, for an agent with fixed tools; ``user``, if the log has user ids (other
    requests are split by conversation)."""

    most_lost: float = Field(default=0.3, gt=0, le=1, exclude=True)
    """Share of the distinct requests that one rule may leave out before a person is asked, not
    counting copies and what people or this file leave out; ``1`` never asks. It changes no row, so
    it is not part of a snapshot's key."""

    languages: Languages = "any"
    """Required language of answers: a list of ISO 639 codes, or ``as_asked`` for the question's
    language; ``any`` checks nothing. Short answers pass."""

    rules: Dispositions = Field(default_factory=Dispositions)
    """The action on each quality rule's findings."""

    near: NearDuplicates = Field(default_factory=NearDuplicates)
    """Which requests count as near-duplicates."""

    overlap: Overlap = Field(default_factory=Overlap)
    """Which training rows are left out because they are tested on."""

    preferences: Preferences = Field(default_factory=Preferences)
    """How feedback becomes pairs, labels and weights, and how far one actor counts."""

    redaction: Redaction = Field(default_factory=Redaction)
    """Which personal data and secrets may stay, and the replacement of the others."""

    balance: Balance = Field(default_factory=Balance)
    """The composition of the training side: caps, budgets, and rows replayed from other sets."""

    clients: ClientShares = Field(default_factory=ClientShares)
    """Shares of the sides that clients after the workload's first one may have."""

    @model_serializer(mode="wrap")
    def _without_no_cap(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Snapshot keys must not change for settings that are unset.
        fields: dict[str, object] = handler(self)
        if self.clients == ClientShares():
            fields.pop("clients", None)
        if self.at_most == MAX_ROWS:
            fields.pop("at_most", None)
        if self.holdout_per_cluster is None:
            fields.pop("holdout_per_cluster", None)
        return fields

    @model_validator(mode="after")
    def _leaves_some_to_train_on(self) -> "Rules":
        if self.holdout_share + self.validation_share >= 1:
            raise ValueError("holdout_share and validation_share leave nothing to train on")
        return self
