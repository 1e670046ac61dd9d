"""Charts name things that come from logs, in whatever script."""

from pathlib import Path

import pytest

from components.pages import charts


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_names_in_any_script_are_drawn_without_a_warning(
    tmp_path: Path, suffix: str, recwarn: pytest.WarningsRecorder
) -> None:
    figure, axes = charts.sheet(height=3)
    charts.rows(axes, ["refund", "返金", "नमस्ते", "שלום"])
    charts.fit(figure)
    path = tmp_path / f"chart.{suffix}"
    charts.save(figure, path)
    assert path.stat().st_size > 1000
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
