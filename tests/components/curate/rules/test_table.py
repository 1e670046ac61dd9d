"""The table of the rules is complete."""

import re
from pathlib import Path

from components.curate import rules
from components.curate.rules import screen
from components.curate.settings import Dispositions

TABLE = Path(rules.__path__[0]) / "README.md"


def test_the_table_names_every_rule_with_its_default_and_every_objection():
    text = TABLE.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (\w+) \|$", text, re.MULTILINE))
    assert rows == Dispositions().model_dump()
    asked = {rule.__name__ for rule in screen.FAULTS} | {"wrong_language"}
    assert asked == rows.keys()
    assert {f"`{rule.__name__}`" for rule in screen.UNFIT} <= set(re.findall(r"`\w+`", text))
