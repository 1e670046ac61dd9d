"""Pages in a browser: long names from traffic are broken and hide nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.gate.report import write_report
from components.gate.report.side_by_side import figures
from components.monitor import status_page
from components.monitor.workload_status import Day, Latency
from tests.support import browsers, gate_cases, workload_statuses
from tests.support.cards import pair

LONG = "x" * 400


def report(_: Path) -> str:
    ours, theirs = (gate_cases.saying(scorecard, LONG) for scorecard in pair(8, 2, 60, 0))
    subject = replace(gate_cases.SUBJECT, workload=LONG)
    case = gate_cases.build(ours, theirs, subject=subject, note=LONG)
    return write_report.html(case, figures(case.challenger, case.opponent, case.judgement), {})


def status() -> str:
    days = [Day(LONG, "2025-10-09", 40, 40, 4000, 800, 30, 10)]
    return status_page.as_html(replace(workload_statuses.quiet(days), workload=LONG), {})


def serving(folder: Path) -> str:
    days = [
        Day("weather@7", "2025-10-09", 120_345, 4000, 4_000_000, 800_000, 2_345, 1_234),
        Day("gpt-4.1-mini", "2025-10-09", 40_000, 400, 4000, 800, 30, 10),
    ]
    took = {day.model_name: Latency(day.model_name, 400, 12_812.0, 31_234.5) for day in days}
    prices = {day.model_name: 0.000123 for day in days}
    quiet = workload_statuses.quiet(days)
    shown = replace(quiet, latencies=took, prices=prices, currency="USD")
    traffic, votes = folder / "traffic.png", folder / "votes.png"
    status_page.draw_traffic(shown, traffic)
    status_page.draw_votes(shown, votes)
    return status_page.as_html(shown, {"traffic": traffic, "votes": votes})


@pytest.mark.slow
def test_long_names_from_traffic_move_nothing_out_of_sight(tmp_path: Path) -> None:
    with browsers.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        for html in (report(tmp_path), status(), serving(tmp_path)):
            page.set_content(html)
            hidden = page.evaluate(
                "[...document.querySelectorAll('html, table, .wide')]"
                ".map(part => part.scrollWidth - part.clientWidth).filter(width => width > 1)"
            )
            assert hidden == []
        browser.close()
