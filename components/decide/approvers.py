"""Who may decide, and what proves it."""

from collections import Counter
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from components.schema import Config

Name = Annotated[str, StringConstraints(pattern=r"^\w[\w .@+-]{0,62}$")]
"""A person's name: letters, digits and ``_ . @ + -`` and blanks."""


class Approver(Config):
    """One person who may decide."""

    name: Name
    """As it is typed into the form."""

    secret_env: str | None = Field(default=None, min_length=1)
    """The environment variable, of the worker, that holds the secret of this person's codes."""

    secret_block: str | None = Field(default=None, min_length=1)
    """The Prefect ``Secret`` block that holds it. Without either it is what
    ``flywheel approver add`` has put into the home."""

    @model_validator(mode="after")
    def _has_one_secret(self) -> "Approver":
        if self.secret_env and self.secret_block:
            raise ValueError(f"{self.name}: has secret_env and secret_block, wants one of them")
        return self


class Approving(Config):
    """Who may decide; whoever reaches the form where nobody is listed."""

    approvers: tuple[Approver, ...] = ()
    """Only they can approve or reject; left out anybody can, under any name."""

    codes: bool = False
    """Whether each answer must carry a one-time code, which proves the name: without, anybody who
    reaches the form can give another's name."""

    four_eyes: bool = False
    """Whether two different people have to approve; one rejection ends it."""

    @property
    def wanted(self) -> int:
        """How many different people have to approve."""
        return 2 if self.four_eyes else 1

    @model_validator(mode="after")
    def _can_be_met(self) -> "Approving":
        """Refuse what nobody could ever meet, and what would do nothing."""
        listed = Counter(one.name for one in self.approvers)
        if twice := [name for name, times in listed.items() if times > 1]:
            raise ValueError(f"approvers: {', '.join(twice)} is listed more than once, wants once")
        held = Counter(filter(None, (one.secret_env or one.secret_block for one in self.approvers)))
        if shared := [place for place, times in held.items() if times > 1]:
            raise ValueError(
                f"approvers: {', '.join(shared)} is the secret of more than one, who could then "
                "answer for each other; wants one each"
            )
        if self.four_eyes and len(listed) < 2:
            raise ValueError(
                f"four_eyes wants two approvers or more, found {len(listed)} under approvers"
            )
        if self.codes and not listed:
            raise ValueError("codes prove who of the approvers it is: list them under approvers")
        idle = [one.name for one in self.approvers if one.secret_env or one.secret_block]
        if idle and not self.codes:
            raise ValueError(
                f"approvers: {', '.join(idle)} has a secret that nothing reads; set codes: true"
            )
        return self

    def find(self, name: str) -> Approver | None:
        """Find an approver by name; ``None`` if it is not listed."""
        return next((one for one in self.approvers if one.name == name), None)
