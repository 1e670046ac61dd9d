"""Templates: values are escaped for the template's format."""

import tomllib

import pytest
from jinja2 import UndefinedError

from components.extensions.search import run
from components.pages import templates

TEMPLATES = sorted((templates.ROOT / "components").rglob("*.j2"))


def test_a_wheel_has_the_templates() -> None:
    project = tomllib.loads((templates.ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    assert all(any(path.match(pattern) for pattern in patterns) for path in TEMPLATES)
    assert len(TEMPLATES) > 5


def test_a_missing_template_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'workload' is undefined"):
        templates.render(
            "components/extensions/search/page.md.j2",
            found=None,
            plan=None,
            reason=run.placement_reason,
        )
