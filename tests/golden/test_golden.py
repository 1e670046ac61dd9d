"""What a version number stands for does not change under it."""

from pathlib import Path

import pytest

from tests.golden import comparing, outputs
from tests.support import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", outputs.ALL)
def test_output_is_that_of_its_version(name: str, tmp_path: Path, base: Path):
    golden, kept = outputs.ALL[name], outputs.kept(name)
    now = golden.of_now(tmp_path / name, base)
    changed = comparing.first_difference(kept["output"], now["output"])
    assert changed is None or kept["version"] != now["version"], (
        f"{changed}: what is made now is not comparable with what was made before. If that is "
        f"meant, raise {golden.place}, then run `python -m tests.golden.rewrite`"
    )
    assert (kept["version"], changed) == (now["version"], None), (
        f"{golden.place} was raised: run `python -m tests.golden.rewrite`"
    )


@pytest.mark.parametrize(
    ("now", "says"),
    [
        pytest.param({"a": [1, 2.0]}, None, id="equal"),
        pytest.param({"a": [1, 2.0001]}, None, id="rounding"),
        pytest.param({"a": [1, 2.1]}, "/a/1 was 2.0 and is 2.1", id="number"),
        pytest.param({"a": [1]}, r"/a was \[1, 2.0\] and is \[1\]", id="length"),
        pytest.param({"b": 1}, r"other keys: \['a', 'b'\]", id="keys"),
    ],
)
def test_the_first_difference_is_named(now: object, says: str | None):
    found = comparing.first_difference({"a": [1, 2.0]}, now)
    if says is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=says):
            raise AssertionError(found)
