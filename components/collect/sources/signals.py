"""Say which kind of feedback a named score is."""

from components.schema import Json

THUMBS = {
    "thumb": True,
    "thumbs": True,
    "thumbs_up": True,
    "like": True,
    "liked": True,
    "user_feedback": True,
    "thumbs_down": False,
    "dislike": False,
    "disliked": False,
}
"""Names under which applications log a thumb, and whether true means up."""


def signal(name: str, value: Json) -> tuple[str, Json]:
    """Give kind and value of a score: a thumb if it is a yes or no of that name, else an outcome.

    Numbers stay outcomes whatever their name: a rating wants its scale, which scores don't say.
    """
    means_up = THUMBS.get(name.strip().lower().replace("-", "_").replace(" ", "_"))
    if means_up is not None and isinstance(value, bool):
        return "thumb", "up" if value is means_up else "down"
    return "outcome", {"name": name, "value": value}
