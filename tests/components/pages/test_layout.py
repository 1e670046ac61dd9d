"""Pages in a browser: long names from traffic are broken and hide nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.gate.report import write_report
from components.gate.report.side_by_side import figures
from components.monitor import status_page
from components.monitor.workload_status import Day
from tests.support import browsers, gate_cases, workload_statuses
from tests.support.cards import pair

LONG = "x" * 400


def report(_: Path) -> str:
    ours, theirs = (gate_cases.saying(scorecard, LONG) for scorecard in pair(8, 2, 60, 0))
    subject = replace(gate_cases.SUBJECT, workload=LONG)
    case = gate_cases.build(ours, theirs, subject=subject, note=LONG)
    return write_report.html(case, figures(case.challenger, case.opponent, case.judgement), {})


def status(folder: Path) -> str:
    days = [Day(LONG, "2025-10-09", 40, 40, 4000, 800, 30, 10)]
    status_page.draw_thumbs(days, folder / "thumbs.png")
    shown = replace(workload_statuses.quiet(days), workload=LONG)
    return status_page.as_html(shown, folder / "thumbs.png")


@pytest.mark.slow
def test_long_names_from_traffic_move_nothing_out_of_sight(tmp_path: Path) -> None:
    with browsers.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for html in (report(tmp_path), status(tmp_path)):
            page.set_content(html)
            hidden = page.evaluate(
                "[...document.querySelectorAll('html, table, .wide')]"
                ".map(part => part.scrollWidth - part.clientWidth).filter(width => width > 1)"
            )
            assert hidden == []
        browser.close()
