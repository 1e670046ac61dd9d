"""A canary is shown with its evidence at each look, on the page, in Prefect and as a picture."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from components.monitor import canary_status, serving_page
from components.monitor.canary_status import CanaryStatus, EvidencePoint, KindPoint
from components.monitor.serving_status import ServingStatus
from tests.components.monitor.test_serving_page import HOSTILE, status

START = "2025-10-19T08:00:00.000+00:00"


def looks(*evidence: float) -> list[EvidencePoint]:
    """Return looks an hour apart, at which `slow` had this evidence."""
    return [
        EvidencePoint(
            f"2025-10-19T{9 + hour:02}:00:00.000+00:00",
            0.1 if hour < 2 else 0.5,
            {
                "slow": KindPoint(10 * hour, 4 * hour, worse, 0.5, 0.9, None),
                "cut": KindPoint(0, 1, 1.0, 2.0, 0.1, 3.5),
            },
        )
        for hour, worse in enumerate(evidence)
    ]


CANARY = CanaryStatus(
    id="0123456789ab",
    version="8",
    champion="7",
    started_at=START,
    state="roll back",
    reason="slow: 30 bad conversations",
    is_over=True,
    steps=[(0.1, 7200.0), (0.5, 3600.0)],
    deadline_seconds=10_800.0,
    margin=2.0,
    worse_bounds={"slow": 250.0, "cut": 250.0},
    within_bound=20.0,
    decisive=("cut",),
    forecast=["slow: some 40 bad conversations until the deadline"],
    history=looks(1.0, 12.0, 90.0, 251.0),
)


def shown(canary: CanaryStatus, folder: Path) -> tuple[str, str]:
    """Return the page and the artifact of a workload with a canary."""
    about = status([], replace(ServingStatus(is_running=False), canaries=[canary]))
    for name in ("traffic", "votes"):
        Image.new("RGB", (2, 2)).save(folder / f"{name}.png")
    picture = folder / "evidence.png"
    canary_status.draw_evidence(canary, picture)
    page = serving_page.as_html(about, folder / "traffic.png", folder / "votes.png", picture)
    return page, serving_page.as_markdown(about)


def test_the_page_has_the_verdict_its_numbers_and_the_picture(tmp_path: Path) -> None:
    page, artifact = shown(CANARY, tmp_path)
    for text in (
        "8 beside 7",
        "roll back: slow: 30",
        "251 of 250",
        "some 40 bad",
        "cut (decisive)",
    ):
        assert text in page
        assert text in artifact.replace("\\", "")
    assert page.count("data:image/png") == 1
    assert "0.1 for 2 h, then 0.5 for 1 h; undecided after 3 h" in page
    assert serving_page.canary_markdown(CANARY) in artifact


def test_a_canary_without_a_look_and_none_at_all_are_pages_too(tmp_path: Path) -> None:
    page, _ = shown(replace(CANARY, history=[], state="waiting", is_over=False), tmp_path)
    assert "No evidence yet." in page
    about = status([], ServingStatus(is_running=False))
    assert "Canary" not in serving_page.as_markdown(about)


def test_what_the_gateway_says_is_no_markup(tmp_path: Path) -> None:
    page, artifact = shown(replace(CANARY, reason=HOSTILE), tmp_path)
    assert "<script>" not in page
    assert "|`{{" not in artifact


def test_the_picture_is_a_function_of_the_looks(tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        drawn = [tmp_path / f"{number}.{suffix}" for number in range(2)]
        for path in drawn:
            canary_status.draw_evidence(CANARY, path)
        assert drawn[0].read_bytes() == drawn[1].read_bytes()
    other = tmp_path / "other.png"
    canary_status.draw_evidence(replace(CANARY, history=looks(1.0, 2.0)), other)
    assert other.read_bytes() != (tmp_path / "0.png").read_bytes()
