"""How much of a workload's sides one of several clients may have; a snapshot's card states it."""

from pydantic import Field

from components.schema import Config

ALWAYS = 50
"""Requests that a client may always have on a side, however few the others have."""


class ClientShares(Config):
    """What bounds the clients that came after a workload's first; the first has no bound."""

    holdout: float = Field(default=0.5, gt=0, le=1)
    """Share of the holdout, and of the validation side, that one later client may have. What is
    more (``over_client_holdout``) is on no side; ``1`` is without bound."""

    train: float = Field(default=0.5, gt=0, le=1)
    """Share of the training side that one later client may have. What is more
    (``over_client_train``) is left out; ``1`` is without bound."""

    together: list[str] = Field(default_factory=list)
    """Clients that are one, as the parts of one application are: patterns of their ids, such as
    ``shop-*``. Those that match the same pattern have one rank and one share, their conversations
    and users are the same, and what one logs counts for the others."""

    displaced: float = Field(default=0.05, ge=0, le=1)
    """Share of a client's requests to train on that rows held out for later clients may displace,
    as too near, overlapping, or offering the same tools. Where it would be more, those rows
    (``displaces_other_client``) are left out instead; ``1`` is without bound."""
