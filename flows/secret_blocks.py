"""Secrets of one-time codes that Prefect keeps, encrypted, in its ``Secret`` blocks."""

from prefect.blocks.system import Secret

from components.decide import totp
from flows.secrets import SecretError


def enrol(name: str, block: str, *, again: bool) -> str:
    """Draw a secret for a person and keep it in a Prefect ``Secret`` block, which encrypts it.

    Raises:
        SecretError: There is such a block, and ``again`` does not say that it may be replaced.
    """
    drawn = totp.draw_secret()
    try:
        Secret[str](value=drawn).save(block, overwrite=again)  # pyright: ignore[reportArgumentType] - it takes plain text
    except ValueError as error:
        raise SecretError(
            f"enrolling {name}: the Secret block {block} could not be made; --again replaces one "
            f"that is there ({error})"
        ) from error
    return drawn


def load(name: str) -> str | None:
    """Give what a block holds; ``None`` if there is none."""
    try:
        return str(Secret[str].load(name).get())  # pyright: ignore[reportAttributeAccessIssue] - it is sync here
    except ValueError:  # what Prefect raises where there is none
        return None
