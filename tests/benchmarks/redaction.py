"""Measure redaction; ``python -m tests.benchmarks.redaction [FOLDER]``.

Throughput is of one process, by its own CPU time, conversations already read from JSON; patterns,
names and secrets together. A quarter of the made ones hold personal data. FOLDER may hold
``telemetry*.jsonl.gz``, which are measured, too; and ``pii/`` with ``presidio_synth_v2.json.gz``
and ``restaurant8k_train.json.gz``, whose labelled spans give recall and precision, beside
Presidio's recognizers of the same kinds where that is installed.
"""

import argparse
import gzip
import importlib.util
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.curate.redaction.patterns import PLACEHOLDER
from components.curate.redaction.redactor import Conversation, Redactor
from components.curate.settings import Redaction
from components.schema import Json
from tests.benchmarks import traffic
from tests.support import logs

ROUNDS = 5
MADE = 5_000
WEATHER = json.dumps([logs.WEATHER])
Span = tuple[str, int, int]

LABELS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
    "STREET_ADDRESS": "address",
    "PERSON": "name",
    "US_DRIVER_LICENSE": "national_id",
}
"""What Presidio calls the kinds."""

SAME = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS")
"""Kinds that both find without a language model."""


def made(count: int, seed: int = 0) -> list[Conversation]:
    """Make conversations of some 200 tokens: a system prompt, three turns, a tool and a call."""
    chance = random.Random(seed)
    vocabulary = ["".join(chance.choices("etaoinshrdlu", k=5)) for _ in range(2000)]
    return [_made(chance, vocabulary, number) for number in range(count)]


def _made(chance: random.Random, vocabulary: list[str], number: int) -> Conversation:
    def words(count: int) -> str:
        return " ".join(chance.choices(vocabulary, k=count))

    who, mail = f"{words(1).title()} {words(1).title()}", f"{words(1)}{number}@mail.acme.com"
    phone = f"{chance.randrange(200, 999)}-555-{chance.randrange(10_000):04d}"
    told = f"My name is {who}, {mail}, call {phone}." if number % 4 == 0 else "Order 48217739."
    arguments = {"to": mail if number % 4 == 0 else words(2), "count": number}
    return Conversation(
        [
            {"role": "system", "content": words(30)},
            {"role": "user", "content": f"{words(40)} {told}"},
            logs.say(words(30)),
            {"role": "user", "content": words(30)},
        ],
        [logs.WEATHER],
        [logs.call("weather", json.dumps(arguments))],
        tools_text=WEATHER,
    )


def read(row: dict[str, Json]) -> Conversation | None:
    """Take a five-key row as what is redacted of it."""
    match row:
        case {"request": {"messages": list(messages), **rest}, "response": {"choices": [choice]}}:
            answer = choice["message"] if isinstance(choice, dict) else {}
            tools = rest.get("tools") or []
            given = {"messages": messages, "tools": tools, "answers": [answer]}
            given["tools_text"] = json.dumps(tools)
            return Conversation(**given)  # pyright: ignore[reportArgumentType] - logs are trusted
        case _:
            return None


def throughput(name: str, conversations: Sequence[Conversation]) -> None:
    """Print how many conversations are redacted in a second, the median of some rounds."""
    redactor = Redactor(Redaction())
    rates: list[float] = []
    redacted: list[bool] = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        redacted = [bool(redactor.redact(one).replaced) for one in conversations]
        rates.append(len(conversations) / (time.process_time() - begun))
    length = statistics.mean(len(str(one.messages)) + len(str(one.tools)) for one in conversations)
    sys.stdout.write(
        f"{name:32} {statistics.median(rates[1:]):8.0f} conversations/s of a core (first round "
        f"{rates[0]:.0f}), {length:.0f} characters each, {sum(redacted) / len(redacted):.0%} hit\n"
    )


def spans_of(text: str, redacted: str) -> list[Span]:
    """Tell which spans of a text became placeholders, by what is left between them."""
    found: list[Span] = []
    place, behind = 0, 0
    for match in [*PLACEHOLDER.finditer(redacted), None]:
        kept = redacted[behind : match.start() if match else len(redacted)]
        start = text.find(kept, place) if kept else place
        if found:
            kind, begun, _ = found[-1]
            found[-1] = (kind, begun, start if match or kept else len(text))
        place = start + len(kept)
        if match:
            found.append((match[1].lower(), place, place))
            behind = match.end()
    return found


def ours(text: str, redactor: Redactor) -> list[Span]:
    """Find spans with our redaction of one user message."""
    redacted = redactor.redact(Conversation([{"role": "user", "content": text}])).conversation
    return spans_of(text, str(redacted.messages[0]["content"]))


def presidio() -> Callable[[str], list[Span]] | None:
    """Give Presidio's pattern recognizers; ``None`` if it is not installed.

    Without a language model the tokenizer is blank. Its check of e-mail domains asks the network
    for a list of suffixes, so it is told to take the one that it carries.
    """
    if importlib.util.find_spec("presidio_analyzer") is None:
        return None
    import spacy  # pyright: ignore[reportMissingImports] - an extra
    import tldextract  # pyright: ignore[reportMissingImports]
    from presidio_analyzer import AnalyzerEngine  # pyright: ignore[reportMissingImports]
    from presidio_analyzer.nlp_engine import (  # pyright: ignore[reportMissingImports]
        SpacyNlpEngine,
    )

    offline = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = offline
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "blank"}])
    engine.nlp = {"en": spacy.blank("en")}
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def find(text: str) -> list[Span]:
        results = analyzer.analyze(text, language="en", entities=list(SAME))
        return [(LABELS[one.entity_type], one.start, one.end) for one in results]

    return find


def compare(
    name: str, texts: list[tuple[str, list[Span]]], find: Callable[[str], list[Span]]
) -> None:
    """Print recall and precision by kind: a span counts where one of its kind overlaps it."""
    caught, labelled, right, told = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    begun = time.process_time()
    found = [find(text) for text, _ in texts]
    rate = len(texts) / (time.process_time() - begun)
    for (_, wanted), given in zip(texts, found, strict=True):
        for span in wanted:
            labelled[span[0]] += 1
            caught[span[0]] += any(_overlap(span, one) for one in given)
        for span in given:
            told[span[0]] += 1
            right[span[0]] += any(_overlap(span, one) for one in wanted)
    sys.stdout.write(f"{name}: {rate:.0f} texts/s of a core\n")
    for kind in sorted(labelled.keys() | told.keys()):
        recall = f"{caught[kind] / labelled[kind]:.3f}" if labelled[kind] else "    -"
        precision = f"{right[kind] / told[kind]:.3f}" if told[kind] else "    -"
        sys.stdout.write(
            f"  {kind:12} recall {recall} of {labelled[kind]:5}   precision {precision} of "
            f"{told[kind]:5}\n"
        )


def _overlap(one: Span, other: Span) -> bool:
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def synthetic(path: Path) -> list[tuple[str, list[Span]]]:
    """Read presidio-research's texts and their spans."""
    return [
        (
            one["full_text"],
            [
                (LABELS[span["entity_type"]], span["start_position"], span["end_position"])
                for span in one["spans"]
                if span["entity_type"] in LABELS
            ],
        )
        for one in json.loads(gzip.decompress(path.read_bytes()))
    ]


def restaurants(path: Path) -> list[tuple[str, list[Span]]]:
    """Read utterances with the spans of persons' names."""
    return [
        (
            one["userInput"]["text"],
            [
                ("name", label["valueSpan"].get("startIndex", 0), label["valueSpan"]["endIndex"])
                for label in one.get("labels", [])
                if label["slot"] in ("first_name", "last_name")
            ],
        )
        for one in json.loads(gzip.decompress(path.read_bytes()))
    ]


def report(folder: Path | None) -> None:
    """Print what there is to measure."""
    throughput("made", made(MADE))
    if folder is None:
        return
    for file in sorted(folder.glob("telemetry*.jsonl.gz")):
        rows = map(json.loads, gzip.decompress(file.read_bytes()).splitlines())
        throughput(file.name, [one for one in map(read, rows) if one])
    throughput("all, other words", list(_reworded(traffic.seeds(folder), MADE)))
    redactor = Redactor(Redaction())
    texts = synthetic(folder / "pii" / "presidio_synth_v2.json.gz")
    compare("presidio_synth_v2, ours", texts, lambda text: ours(text, redactor))
    if find := presidio():
        compare("presidio_synth_v2, Presidio's of the same kinds", texts, find)
    texts = restaurants(folder / "pii" / "restaurant8k_train.json.gz")
    compare("restaurant8k, ours", texts, lambda text: ours(text, redactor))


def _reworded(rows: list[dict[str, Json]], count: int) -> Iterator[Conversation]:
    chance = random.Random(0)
    for number in range(count):
        varied = traffic.varied(rows[number % len(rows)], number, chance)
        if conversation := read(varied):
            yield conversation


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    report(parser.parse_args().folder)
