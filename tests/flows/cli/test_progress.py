"""What a person sees of a turn: bars on a terminal, and lines that can be kept elsewhere."""

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

from components.schema import Progress
from components.store import manifest
from flows.cli.progress import ProgressScreen
from flows.jobs import runner
from flows.turn_progress import Stage

COLLECTED = Stage("collect", seconds=1.26, said="54 new rows")


def progress(folder: Path, done: int, of: int = 24) -> Stage:
    """Write how far a training is, and give its running stage."""
    now = Progress("train", done, of, "steps", {"loss": 0.51234})
    folder.mkdir(exist_ok=True)
    manifest.write_atomically(folder / "progress.json", runner.progress_line(now))
    return Stage("train", job=str(folder))


def lines(*shown: list[Stage], quiet_seconds: float = 15) -> list[str]:
    """Show one state of a turn after the other where there is no terminal."""
    console = Console(file=StringIO(), width=60)
    with ProgressScreen(console, quiet_seconds) as screen:
        for stages in shown:
            screen.show(stages)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_without_a_terminal_each_stage_is_said_once_when_it_ended() -> None:
    running = Stage("curate")
    curated = Stage("curate", seconds=0.5, said="27 to train on")
    printed = lines(
        [], [COLLECTED], [COLLECTED, running], [COLLECTED, curated], [COLLECTED, curated]
    )
    assert printed == ["collect       1.3 s  54 new rows", "curate        0.5 s  27 to train on"]


def test_a_stage_that_was_done_before_says_so() -> None:
    reused = Stage("train", seconds=0.1, said="adapter a", reused=True)
    assert lines([reused]) == ["train         0.1 s  adapter a (done before)"]


def test_work_without_figures_that_is_done_has_no_time_left(tmp_path: Path) -> None:
    now = Progress("rung 1, 4 candidates, being measured:", 40, 40, "steps", {"seconds_left": 0})
    manifest.write_atomically(tmp_path / "progress.json", runner.progress_line(now))
    assert lines([Stage("train", job=str(tmp_path))], quiet_seconds=0) == [
        "train     rung 1, 4 candidates, being measured, 40 of 40 steps"
    ]


def test_a_long_line_is_not_broken() -> None:
    long = Stage("collect", seconds=1, said="word " * 30 + "end")
    assert lines([long])[0].endswith("word end")


def test_without_a_terminal_a_running_stage_is_silent_at_first(tmp_path: Path) -> None:
    assert lines([progress(tmp_path, 6)]) == []


def test_without_a_terminal_a_running_stage_says_now_and_then_how_far_it_is(tmp_path: Path) -> None:
    printed = lines([progress(tmp_path, 6)], quiet_seconds=0)
    assert printed == ["train     train loss 0.512, 6 of 24 steps"]


def test_once_a_stage_moves_the_rest_is_estimated(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=100)
    with ProgressScreen(console, quiet_seconds=0) as screen:
        screen.show([progress(tmp_path, 6)])
        screen.show([progress(tmp_path, 12)])
    assert isinstance(console.file, StringIO)
    last = console.file.getvalue().splitlines()[1]
    assert re.search(r"12 of 24 steps, about \d+ s left$", last)


def test_the_first_piece_of_many_is_no_pace(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=100)
    with ProgressScreen(console, quiet_seconds=0) as screen:
        for done in (0, 1):
            screen.show([progress(tmp_path, done, of=200)])
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().endswith("1 of 200 steps\n")


def test_a_training_shows_its_figures_in_few_words_and_the_time_it_expects(tmp_path: Path) -> None:
    figures = {
        "loss": 0.5123,
        "learning_rate": 0.0009755,
        "grad_norm": 1.23,
        "tokens_per_second": 811.7,
        "peak_memory_gb": 1.25,
        "seconds_left": 41.7,
    }
    now = Progress("train", 6, 24, "steps", figures)
    manifest.write_atomically(tmp_path / "progress.json", runner.progress_line(now))
    (printed,) = lines([Stage("train", job=str(tmp_path))], quiet_seconds=0)
    assert printed == (
        "train     train loss 0.512 lr 0.00098 grad 1.2 812 tokens/s 1.25 GB, 6 of 24 steps, "
        "about 42 s left"
    )


def test_a_stage_that_began_again_is_never_said_to_end_in_the_past(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=60)
    with ProgressScreen(console, quiet_seconds=0) as screen:
        for done in (20, 12, 13):
            screen.show([progress(tmp_path / "job", done)])
    assert isinstance(console.file, StringIO)
    again, on = console.file.getvalue().splitlines()[1:]
    assert "left" not in again
    assert re.search(r"about \d+ s left", on)


def test_a_terminal_shows_a_bar_for_each_stage(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=120, force_terminal=True, color_system=None)
    with ProgressScreen(console) as screen:
        screen.show([COLLECTED, progress(tmp_path, 6)])
    assert isinstance(console.file, StringIO)
    drawn = console.file.getvalue().splitlines()
    collect = next(line for line in reversed(drawn) if "collect" in line)
    train = next(line for line in reversed(drawn) if "train" in line)
    assert "1/1" in collect and "54 new rows" in collect
    assert "6/24" in train and "train loss 0.512" in train


def test_on_80_columns_no_figure_of_a_stage_is_cut_off(tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    said = "1421 new rows from 6 new of 6 files, 0 lines in quarantine"
    with ProgressScreen(console) as screen:
        screen.show([Stage("collect", seconds=1.26, said=said), progress(tmp_path, 616, of=1000)])
    assert isinstance(console.file, StringIO)
    drawn = console.file.getvalue()
    assert "…" not in drawn
    assert set(said.split()) | {"1/1", "616/1000", "0:00:00", "-:--:--"} <= set(drawn.split())
