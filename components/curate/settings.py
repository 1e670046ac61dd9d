"""What a workload file says under ``curate``."""

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from components.client_shares import ClientShares
from components.curate.balance.settings import Balance
from components.curate.near.settings import NearDuplicates
from components.curate.overlap.settings import Overlap
from components.curate.preferences.settings import Preferences
from components.curate.redaction.settings import Redaction
from components.curate.rules.dispositions import Dispositions
from components.curate.rules.language import Languages
from components.curate.split import SplitBy
from components.schema import Config


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
