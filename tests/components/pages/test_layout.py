"""A report in a browser: long names from traffic are broken and hide nothing."""

from dataclasses import replace

import pytest

from components.gate.report import write_report
from components.gate.report.side_by_side import figures
from tests.support import browsers, gate_cases
from tests.support.cards import pair

LONG = "x" * 400


def report() -> str:
    ours, theirs = (gate_cases.saying(scorecard, LONG) for scorecard in pair(8, 2, 60, 0))
    subject = replace(gate_cases.SUBJECT, workload=LONG)
    case = gate_cases.build(ours, theirs, subject=subject, note=LONG)
    return write_report.html(case, figures(case.challenger, case.opponent, case.judgement), {})


@pytest.mark.slow
def test_long_names_from_traffic_move_nothing_out_of_sight() -> None:
    with browsers.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_content(report())
        hidden = page.evaluate(
            "[...document.querySelectorAll('html, table, .wide')]"
            ".map(part => part.scrollWidth - part.clientWidth).filter(width => width > 1)"
        )
        assert hidden == []
        browser.close()
