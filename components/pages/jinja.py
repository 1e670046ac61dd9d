"""Render the pages' templates; each value is escaped for the template's format."""

import base64
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.pages import markdown
from components.pages.markdown import visible

COMPONENTS = Path(__file__).parents[1]


def render(template: str, **values: object) -> str:
    """Render a ``.md.j2`` or ``.html.j2`` file, named by its path in ``components/``."""
    finalize = markdown.escaped if template.endswith(".md.j2") else _visible
    functions = {"share": share, "table": markdown.table}
    return _environment(finalize).get_template(template, globals=functions).render(values)


def inline(picture: Path) -> Markup:
    """Return the address of a PNG that holds the picture itself, so that a page stands alone."""
    return Markup(f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}")


def share(count: int, total: int) -> str:
    """Write a share in percent."""
    return f"{count / total:.1%}" if total else "0 %"


@cache
def _environment(finalize: Callable[[object], object]) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(COMPONENTS),
        autoescape=True,  # escapes HTML in all that `finalize` did not mark as safe
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
    environment.filters.update(
        address=_address,
        code=markdown.code,
        count=_count,
        fence=markdown.fence,
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


def _visible(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)
