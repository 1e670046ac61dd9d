"""Languages are detected without a network."""

import pytest

from components.curate.rules.language import language, wrong_language
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


def test_an_answer_outside_the_configured_languages_is_found():
    assert wrong_language(answered(FRENCH), ("en", "de")) == "fr"
    assert wrong_language(answered(GERMAN), ("en", "de")) is None
    assert wrong_language(answered("Oui."), ("en",)) is None
    assert wrong_language(answered(FRENCH), "any") is None


def test_as_asked_requires_the_language_of_the_question():
    assert wrong_language(answered(ENGLISH, asked=GERMAN), "as_asked") == "en, asked in de"
    assert wrong_language(answered(GERMAN, asked=GERMAN), "as_asked") is None
    assert wrong_language(answered(GERMAN, asked="?"), "as_asked") is None
