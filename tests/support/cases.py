"""How many cases a property is tried on: a few in the default suite, all in the slow one."""

from typing import Any

from hypothesis import settings

SHARE = 6  # the default suite tries a sixth


def cases(number: int, **options: Any) -> settings:
    """Return the settings of a property with this many cases under the profile `random`."""
    is_random = settings.get_current_profile_name() == "random"
    return settings(
        max_examples=number if is_random else -(-number // SHARE), deadline=None, **options
    )
