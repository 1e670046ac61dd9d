"""The files of a home are listed wherever its folders are, and once each."""

import shutil
from pathlib import Path

from components.store import home_files


def test_folders_elsewhere_are_listed_as_part_of_it_and_no_other_link_is_followed(
    tmp_path: Path,
) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    for file in (home / "a/1", home / "tmp/2", home / "b/tmp/3", disk / "4", disk / "c/5"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    targets = {
        "disk": disk,
        "disk-again": disk / "c",
        "inside": home / "a",
        "above": tmp_path,
        "broken": tmp_path / "none",
        "file": disk / "4",
        "loop": home / "loop",
    }
    for name, target in targets.items():
        (home / name).symlink_to(target)
    (disk / "back").symlink_to(home)
    assert [str(path.relative_to(home)) for path in home_files.files(home, {"tmp"})] == [
        "a/1",
        "above",
        "b/tmp/3",
        "broken",
        "disk/4",
        "disk/back",
        "disk/c/5",
        "disk-again",
        "file",
        "inside",
        "loop",
    ]


def test_a_folder_that_is_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").touch()
    listed = home_files.files(tmp_path)
    assert next(listed) == tmp_path / "0/file"
    shutil.rmtree(tmp_path / "1")
    assert list(listed) == [tmp_path / "2/file"]
