"""An exchange without personal data is redacted once, and again after any change of it."""

from contextlib import suppress
from pathlib import Path

from components.curate import judgement_cache
from components.curate.redaction.clean_exchanges import CleanExchanges
from components.curate.redaction.redactor import Conversation, for_settings
from components.curate.settings import Redaction
from components.schema import Json
from components.store import warehouse

Redacted = tuple[Conversation, Conversation] | None


class Redactor:
    """Redacts exchanges, and counts them."""

    def __init__(self) -> None:
        self.redacted = 0

    def __call__(self, interaction_id: str, conversation: Conversation) -> Redacted:
        self.redacted += 1
        redacted = for_settings(Redaction()).redact(conversation).conversation
        return redacted, redacted


def exchange(question: str, answer: Json = "Yes.", *, is_corrected: bool = False) -> Conversation:
    return Conversation(
        [{"role": "user", "content": question}],
        [],
        [{"role": "assistant", "content": answer}],
        is_corrected=is_corrected,
    )


def redacted_again(folder: Path, *exchanges: Conversation, version: str = "1") -> int:
    """Redact exchanges as one night does; return how many were not known to be clean."""
    redact = Redactor()
    night = CleanExchanges(folder, version, redact)
    for each in exchanges:
        assert night.redact("i", each) == Redactor()("i", each)
    night.save()
    return redact.redacted


def test_only_what_is_new_or_has_values_is_redacted(tmp_path: Path):
    clean, other = exchange("Is it late?"), exchange("Is it early?")
    marked = exchange("Is ann@acme.org late?")
    assert redacted_again(tmp_path, clean, marked) == 2
    assert redacted_again(tmp_path, clean, marked, other) == 2
    assert redacted_again(tmp_path, clean, marked, other) == 1
    changed = [exchange("Is it late?", "No."), exchange("Is it late?", is_corrected=True)]
    assert redacted_again(tmp_path, *changed) == 2


def test_what_is_gone_or_of_another_version_is_forgotten(tmp_path: Path):
    clean, other = exchange("Is it late?"), exchange("Is it early?")
    assert redacted_again(tmp_path, clean, other) == 2
    assert redacted_again(tmp_path, other) == 0
    assert redacted_again(tmp_path, clean, other) == 1
    assert redacted_again(tmp_path, clean, other, version="2") == 2
    assert len([*tmp_path.iterdir()]) == 1


def test_an_erasure_forgets_all(tmp_path: Path):
    redacted_again(tmp_path / "kept", exchange("Is it late?"))
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        judgement_cache.forget_missing(con, tmp_path / "kept")
    assert [*(tmp_path / "kept").iterdir()] == []


def test_what_can_not_be_digested_is_redacted(tmp_path: Path):
    deep: Json = "Yes."
    for _ in range(5_000):
        deep = [deep]
    redact = Redactor()
    with suppress(RecursionError):
        CleanExchanges(tmp_path, "1", redact).redact("i", exchange("Is it late?", deep))
    assert redact.redacted == 1
