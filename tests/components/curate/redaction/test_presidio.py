import importlib
import importlib.util
from pathlib import Path
from typing import Any, cast

import pytest

from components.curate.redaction import presidio
from components.curate.settings import Presidio, Redaction
from tests.support.talk import said

IS_INSTALLED = importlib.util.find_spec("presidio_analyzer") is not None
with_presidio = pytest.mark.skipif(not IS_INSTALLED, reason="the extra presidio is not installed")


@pytest.mark.skipif(IS_INSTALLED, reason="the extra presidio is installed")
def test_presidio_settings_are_rejected_if_it_is_not_installed():
    with pytest.raises(ValueError, match=r"pip install 'lora-flywheel\[presidio\]'"):
        Redaction.model_validate({"presidio": {"entities": ["PHONE_NUMBER"]}})


@with_presidio
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param({}, "PERSON needs a spaCy model", id="no-model"),
        pytest.param({"model": "no_such_model"}, "neither a package nor a folder", id="missing"),
    ],
)
def test_names_require_an_existing_language_model(settings: object, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        Redaction.model_validate({"presidio": settings})


@with_presidio
def test_a_language_models_names_and_places_are_replaced(tmp_path: Path):
    spacy = cast("Any", importlib.import_module("spacy"))
    model = spacy.blank("en")
    model.add_pipe("entity_ruler").add_patterns(
        [
            {"label": "PERSON", "pattern": "Ada Lovelace"},
            {"label": "GPE", "pattern": "Springfield"},
        ]
    )
    model.to_disk(tmp_path / "model")
    asked = {"entities": ["PERSON", "LOCATION"], "model": str(tmp_path / "model")}
    text = "Ask Ada Lovelace of Springfield; Ada knows ann@acme.com."
    assert said(text) == "Ask Ada Lovelace of Springfield; Ada knows <EMAIL_1>."
    assert said(text, Redaction.model_validate({"presidio": asked})) == (
        "Ask <NAME_1> <NAME_2> of <ADDRESS_1>; <NAME_1> knows <EMAIL_1>."
    )


@with_presidio
def test_without_a_model_presidio_has_patterns():
    settings = Redaction.model_validate({"presidio": {"entities": ["PHONE_NUMBER"]}})
    assert said("ring 415 555 2671", settings) == "ring <PHONE_1>"


def test_a_changed_language_model_has_another_digest(tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    settings = Presidio.model_construct(model=str(model))
    digests: set[str | None] = set()
    for content in ("one", "another"):
        (model / "weights").write_text(content)
        digests.add(presidio.model_digest(settings))
    assert len(digests) == 2
    assert presidio.model_digest(Presidio.model_construct(model=None)) is None
    assert presidio.model_digest(Presidio.model_construct(model="re2"))
