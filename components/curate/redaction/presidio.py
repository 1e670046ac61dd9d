"""Presidio's recognizers as a plug-in: names and places, with your own language model.

Without a spaCy model Presidio has patterns only, of which only those that our own do not cover are
used. With a model, redacting twice may find more, as its findings depend on the surrounding text.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from components.curate.redaction.patterns import Kind
from components.curate.settings import Presidio
from components.store import manifest

KINDS = {"PERSON": Kind.NAME, "LOCATION": Kind.ADDRESS, "PHONE_NUMBER": Kind.PHONE}
"""All other entities are national ids."""

LIBRARIES = ("presidio-analyzer", "spacy", "phonenumbers")
"""Another version of these may find other values."""

SURE = 0.4  # the score of Presidio's phone recognizer, the lowest of those used


def model_digest(settings: Presidio) -> str | None:
    """Return the digest of the language model's files; ``None`` without a model."""
    if settings.model is None:
        return None
    folder = Path(settings.model)
    if not folder.is_dir():
        package = importlib.util.find_spec(settings.model)
        assert package is not None, "checked when the settings were read"
        assert package.origin is not None
        folder = Path(package.origin).parent
    compiled = {path.relative_to(folder).as_posix() for path in folder.rglob("*.pyc")}
    return manifest.folder_digest(folder, compiled)


class Analyzer:
    """Holds Presidio's engine and the language model."""

    def __init__(self, settings: Presidio) -> None:
        self._settings = settings
        self._engine = _engine(settings)

    def find(self, text: str) -> Iterator[tuple[Kind, str]]:
        """Yield the values in a text, with their kinds."""
        results = self._engine.analyze(
            text,
            language=self._settings.language,
            entities=list(self._settings.entities),
            score_threshold=SURE,
        )
        for result in sorted(results, key=lambda r: (r.start, r.end, r.entity_type)):
            kind = KINDS.get(result.entity_type, Kind.NATIONAL_ID)
            yield kind, text[result.start : result.end]


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
