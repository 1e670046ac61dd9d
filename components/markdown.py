"""Write Markdown whose names come from anywhere: they stay text, in their cell."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Give the lines of a table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [_line(head), _line(rule), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(name: str) -> str:
    """Give text from anywhere as code that stays within its cell."""
    clean = "".join(one if one.isprintable() else " " for one in name)
    return "`" + (clean.replace("`", "'").replace("|", "\\|").strip() or " ") + "`"


def plain(name: str) -> str:
    """Give a name for a heading; what could be markup becomes a question mark."""
    return "".join(one if one.isalnum() or one in "-_. " else "?" for one in name)


def share(count: int, total: int) -> str:
    """Give a share in percent."""
    return f"{count / total:.1%}" if total else "0 %"
