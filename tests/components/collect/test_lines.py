import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from components.collect import lines
from components.collect.lines import Line, Unreadable


def read(tmp_path: Path, content: bytes) -> list[Line | Unreadable]:
    path = tmp_path / "log"
    path.write_bytes(content)
    return list(lines.read_lines(path))


@pytest.mark.parametrize("pack", [pytest.param(bytes, id="plain"), gzip.compress])
def test_lines_are_numbered_from_1_and_blank_lines_skipped(
    tmp_path: Path, pack: Callable[[bytes], bytes]
):
    pieces = read(tmp_path, pack(b"\xef\xbb\xbfa\r\n\n  \nb"))
    assert pieces == [Line(1, "a"), Line(4, "b")]


def test_an_empty_file_has_no_lines(tmp_path: Path):
    assert read(tmp_path, b"") == []


def test_bytes_that_are_not_utf8_are_kept_with_their_place(tmp_path: Path):
    pieces = read(tmp_path, b"good\nba\xffd\ngood\n")
    assert pieces[1] == Unreadable(2, b"ba\xffd\n", "the line is not UTF-8: byte 0xff at 2")
    assert pieces[2] == Line(3, "good")


def test_a_truncated_gzip_yields_its_good_lines_then_the_cut_line(tmp_path: Path):
    numbers = b"".join(b"%d %d\n" % (n, n * 7919 % 1000) for n in range(100_000))
    pieces = read(tmp_path, gzip.compress(numbers)[:-5000])
    good = [piece.text for piece in pieces if isinstance(piece, Line)]
    assert len(good) > 90_000
    assert good == numbers.decode().split("\n")[: len(good)]
    (cut,) = [piece for piece in pieces if isinstance(piece, Unreadable)]
    assert cut.number == len(good) + 1
    assert "the line is cut: the gzip stream is damaged" in cut.reason


def test_a_gzip_cut_between_lines_reports_where_it_ends(tmp_path: Path):
    packed = gzip.compress(b"a\nb\n")
    pieces = read(tmp_path, packed[:-8])
    assert pieces[:2] == [Line(1, "a"), Line(2, "b")]
    assert isinstance(pieces[2], Unreadable)
    assert pieces[2].number == 3
    assert "the file ends here" in pieces[2].reason


def test_a_gzip_with_flipped_bits_does_not_stop_the_run(tmp_path: Path):
    packed = bytearray(gzip.compress(b"a\n" * 1000))
    packed[len(packed) // 2] ^= 0xFF
    damaged = [piece for piece in read(tmp_path, bytes(packed)) if isinstance(piece, Unreadable)]
    assert damaged
    assert "damaged" in damaged[-1].reason


def test_a_long_line_is_quarantined_whole_and_the_next_line_read(tmp_path: Path):
    long = b"x" * (50 * 2**20)
    pieces = read(tmp_path, b"a\n" + long + b"\nb\n")
    assert pieces[0] == Line(1, "a")
    assert isinstance(pieces[1], Unreadable)
    assert pieces[1].content == long + b"\n"
    assert (
        pieces[1].reason == f"the line has {len(long) + 1} bytes, expected at most {lines.LONGEST}"
    )
    assert pieces[2] == Line(3, "b")


def test_an_endless_line_is_kept_only_in_part(tmp_path: Path):
    (pieces,) = read(tmp_path, gzip.compress(b"x" * (lines.MAX_KEPT + 12345), compresslevel=1))
    assert isinstance(pieces, Unreadable)
    assert len(pieces.content) == lines.MAX_KEPT
    assert f"the first {lines.MAX_KEPT} are kept" in pieces.reason


def test_a_line_of_the_longest_length_is_read(tmp_path: Path):
    pieces = read(tmp_path, b"x" * lines.LONGEST + b"\n")
    assert [type(piece) for piece in pieces] == [Line]
