"""Presidio's recognizers as a plug-in: for names and places, with a language model that you bring.

Without a spaCy model Presidio has patterns only, and of these only those are asked that our own do
not cover. What a language model finds may differ once a text is redacted, so with one, redacting
twice may find more.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import model_validator

from components.curate.redaction.patterns import Kind
from components.schema import Config

Entity = Literal[
    "PERSON",
    "LOCATION",
    "PHONE_NUMBER",
    "US_PASSPORT",
    "US_DRIVER_LICENSE",
    "US_ITIN",
    "UK_NHS",
    "MEDICAL_LICENSE",
]

KINDS: dict[str, Kind] = {
    "PERSON": Kind.NAME,
    "LOCATION": Kind.ADDRESS,
    "PHONE_NUMBER": Kind.PHONE,
    "US_PASSPORT": Kind.NATIONAL_ID,
    "US_DRIVER_LICENSE": Kind.NATIONAL_ID,
    "US_ITIN": Kind.NATIONAL_ID,
    "UK_NHS": Kind.NATIONAL_ID,
    "MEDICAL_LICENSE": Kind.NATIONAL_ID,
}
NEED_A_MODEL = frozenset({"PERSON", "LOCATION"})
SURE = 0.4
"""What Presidio's phone recognizer gives; it is the least sure of those that are asked."""


class Presidio(Config):
    """What Presidio is asked for; needs ``pip install 'lora-flywheel[presidio]'``."""

    entities: tuple[Entity, ...] = ("PERSON",)
    """``LOCATION`` takes every town and country, too, also where a tool needs them."""

    model: str | None = None
    """A spaCy model: the name of its package, or its folder; for ``PERSON`` and ``LOCATION``."""

    language: str = "en"
    """Which language's recognizers are asked."""

    @model_validator(mode="after")
    def _is_installed(self) -> "Presidio":
        if importlib.util.find_spec("presidio_analyzer") is None:
            raise ValueError("Presidio is not installed: pip install 'lora-flywheel[presidio]'")
        if self.model is None and (wanted := NEED_A_MODEL.intersection(self.entities)):
            raise ValueError(f"{', '.join(sorted(wanted))} wants a spaCy model, and none is named")
        if self.model is not None and not _exists(self.model):
            raise ValueError(f"there is neither a package nor a folder {self.model}")
        return self


def _exists(model: str) -> bool:
    return Path(model).is_dir() or (
        model.isidentifier() and importlib.util.find_spec(model) is not None
    )


class Analyzer:
    """Holds Presidio's engine and the language model."""

    def __init__(self, settings: Presidio) -> None:
        self._settings = settings
        self._engine = _engine(settings)

    def find(self, text: str) -> Iterator[tuple[Kind, str]]:
        """Give the values in a text, with their kinds."""
        results = self._engine.analyze(
            text,
            language=self._settings.language,
            entities=list(self._settings.entities),
            score_threshold=SURE,
        )
        for one in sorted(results, key=lambda one: (one.start, one.end, one.entity_type)):
            yield KINDS[one.entity_type], text[one.start : one.end]


def _engine(settings: Presidio) -> Any:  # noqa: ANN401 - an optional, untyped library
    analyzer = cast("Any", importlib.import_module("presidio_analyzer"))
    engines = cast("Any", importlib.import_module("presidio_analyzer.nlp_engine"))
    spacy = cast("Any", importlib.import_module("spacy"))
    name = settings.model or "blank"
    nlp = engines.SpacyNlpEngine(models=[{"lang_code": settings.language, "model_name": name}])
    # Presidio would try to download a model that is not there.
    loaded = spacy.load(name) if settings.model else spacy.blank(settings.language)
    nlp.nlp = {settings.language: loaded}
    return analyzer.AnalyzerEngine(nlp_engine=nlp, supported_languages=[settings.language])
