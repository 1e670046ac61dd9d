"""Render Jinja templates as Markdown or HTML pages; text cannot break out of its cell."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.pages.visible_text import visible

# Not every renderer accepts a backslash before < and &, so these become entities. An underscore
# between letters is not markup. "://", "www." and "@" would become links without brackets.
_MARKUP = re.compile(
    r"[<>&\\`*\[\]|!#~@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\."
    r"|^[-+=](?=[-+=\s]|$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)"
)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def words(text: str) -> Markup:
    """Escape text for one line of Markdown, which shows it as it is."""
    flat = " ".join(visible(text).split())
    return Markup(_MARKUP.sub(lambda mark: _ENTITIES.get(mark[0]) or f"\\{mark[0]}", flat))


def code(text: object) -> Markup:
    """Return text as a code span that stays within its cell."""
    clean = "".join(c if c.isprintable() else " " for c in str(text))
    return Markup("`" + (clean.replace("`", "'").replace("|", "\\|").strip() or " ") + "`")


def fence(text: str, language: str = "") -> Markup:
    """Return text as a code block, with a fence longer than any run of backticks in it."""
    marks = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return Markup(f"{marks}{language}\n{text}\n{marks}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table; all columns except the first are aligned to the right."""
    rule = f"| {' | '.join(['---', *['---:'] * (len(head) - 1)])} |"
    first, *others = (f"| {' | '.join(map(str, map(escaped, row)))} |" for row in (head, *rows))
    return Markup("\n".join([first, rule, *others]))


def escaped(value: object) -> object:
    """Escape a text, unless it is Markdown that this module wrote; return other values."""
    return words(value) if isinstance(value, str) and not isinstance(value, Markup) else value


ROOT = Path(__file__).parents[2]


def render(template: str, **values: object) -> str:
    """Render a ``.md.j2`` or ``.html.j2`` file, named by its path from the project's root."""
    finalize = escaped if template.endswith(".md.j2") else _visible_value
    functions = {"share": share, "table": table}
    return _environment(finalize).get_template(template, globals=functions).render(values)


def inline(picture: Path) -> Markup:
    """Return a PNG as a data URL, for a page without other files."""
    return Markup(f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}")


def share(count: int, total: int) -> str:
    """Return a share in percent."""
    return f"{count / total:.1%}" if total else "0 %"


@cache
def _environment(finalize: Callable[[object], object]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        autoescape=True,  # escapes HTML in all that `finalize` did not mark as safe
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.filters.update(
        address=_address,
        code=code,
        count=_count,
        fence=fence,
        inline=inline,
        json=_json,
    )
    return environment


def _address(url: str) -> Markup:
    return Markup(quote(url, safe="/:?#@!$&'*+,;=%~-._"))


def _count(number: int) -> str:
    return f"{number:,}"


def _json(value: object) -> Markup:
    return Markup(json.dumps(value))


def _visible_value(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)
