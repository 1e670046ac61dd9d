"""Plans for large models agree with what is published of them."""

import pytest

from tests.support import published_memory
from tests.support.published_memory import FIGURES, TOLERANCE, Figure


@pytest.mark.slow
@pytest.mark.parametrize(
    "figure",
    [pytest.param(one, id=f"{one.model}, {one.source}") for one in FIGURES],
)
def test_a_plan_agrees_with_what_is_published(figure: Figure):
    gigabytes = published_memory.planned(figure).peak / 1e9
    if figure.is_limit:
        assert gigabytes < figure.gb
    else:
        assert gigabytes == pytest.approx(figure.gb, rel=TOLERANCE)
