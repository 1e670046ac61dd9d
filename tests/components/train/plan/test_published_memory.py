"""Plans for large models agree with published figures."""

import pytest

from tests.support import published_memory
from tests.support.published_memory import FIGURES, LEAST, Figure


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure",
    [pytest.param(figure, id=f"{figure.model}, {figure.source}") for figure in FIGURES],
)
def test_a_plan_agrees_with_published_figures(figure: Figure):
    gigabytes = published_memory.planned(figure).peak / 1e9
    assert gigabytes < figure.gb
    assert figure.is_limit or gigabytes > LEAST * figure.gb
