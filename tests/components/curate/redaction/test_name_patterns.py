import pytest

from components.curate.redaction.redactor import Conversation
from tests.support import logs
from tests.support.talk import arguments, redact, said, user


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hi, my name is Mia Li and I fly", "Hi, my name is <NAME_1> <NAME_2> and I fly"),
        ("my name is mia li calling about", "my name is <NAME_1> <NAME_2> calling about"),
        ("I'm Noah Brown, hello", "I'm <NAME_1> <NAME_2>, hello"),
        ("I am Karan. Help", "I am <NAME_1>. Help"),
        ("under the name Jodi Nadler by 8", "under the name <NAME_1> <NAME_2> by 8"),
        ("ask Dr. Moore or Moore's nurse", "ask Dr. <NAME_1> or <NAME_1>'s nurse"),
        (
            "Please help.\nBest regards,\nIvan Muller",
            "Please help.\nBest regards,\n<NAME_1> <NAME_2>",
        ),
        (
            "My name is Grace. Will you help, Grace?",
            "My name is <NAME_1>. Will you help, <NAME_1>?",
        ),
        ("for my friend Ivan, as Ivan asked", "for my friend <NAME_1>, as <NAME_1> asked"),
        ("My user ID is amelia_davis_8890.", "My user ID is <NAME_1>_<NAME_2>_8890."),
        ("my name is Jo22. Jo22 it is.", "my name is <NAME_1>22. <NAME_1>22 it is."),
        ("Call me Bob. Bob it is.", "Call me <NAME_1>. <NAME_1> it is."),
        ("Ich heiße Jürgen Müller. Müller!", "Ich heiße <NAME_1> <NAME_2>. <NAME_2>!"),
        ("Je m'appelle Sophie Dupont, merci", "Je m'appelle <NAME_1> <NAME_2>, merci"),
        ("Me llamo Carmen Ruiz y llamo", "Me llamo <NAME_1> <NAME_2> y llamo"),
        ("Mijn naam is Jan de Vries", "Mijn naam is <NAME_1> de <NAME_2>"),
        ("Меня зовут Иван Петров", "Меня зовут <NAME_1> <NAME_2>"),
        ("我叫张伟。谢谢,张伟的电话", "我叫<NAME_1>。谢谢,<NAME_1>的电话"),
        ("名前は田中太郎です", "名前は<NAME_1>です"),
        ("제 이름은 김민수입니다", "제 이름은 <NAME_1>입니다"),
        (
            "Bitte.\n\nMit freundlichen Grüßen\nJürgen Müller",
            "Bitte.\n\nMit freundlichen Grüßen\n<NAME_1> <NAME_2>",
        ),
        ("Please.\nBest,\nSofia Kim", "Please.\nBest,\n<NAME_1> <NAME_2>"),
        ("\u0421 уважением, Иван Петров", "\u0421 уважением, <NAME_1> <NAME_2>"),
        ("小林陽子と申します", "<NAME_1>と申します"),
        ("はじめまして、小林 陽子と申します。", "はじめまして、<NAME_1> <NAME_2>と申します。"),
        ("ABC株式会社の田中と申します", "ABC株式会社の<NAME_1>と申します"),
        (
            "A booking for 6 people under Ada Byner",
            "A booking for 6 people under <NAME_1> <NAME_2>",
        ),
    ],
)
def test_a_revealed_name_is_replaced_everywhere(text: str, left: str):
    assert said(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "Mi chiamo Dott. {}",
        "Mi chiamo Dott.ssa {}",
        "Meu nome é Sr. {}",
        "Je m'appelle Mme. {}",
        "Je m'appelle M. {}",
        "Me llamo D. {}",
        "My name is Dr. {}",
        "Call me Miss {}",
        "This is Dr {}",
        "Her name is Prof. {}",
        "It is booked under Mrs. {}",
        "Best regards,\nDr. {}",
        "Sono la Dott.ssa {}",
        "Prenota la Sig.ra {}",
        "Ask Herr Dr. {}",
        "Frau Prof. Dr. med. {}",
        "La señora {}",
        "Bonjour, monsieur {}",
        "Il signor {}",
        "La Signora {}",
        "A Sra. {}",
        "Ask Dr. J. {}",
        "My name is J. {}",
        '{{"passenger": "Dr. {}"}}',
        "Please help. Best regards, {}",
        "Please help. Kind regards {}",
        "Bitte. Mit freundlichen Grüßen {}",
        "Por favor. Un saludo, {}",
        "Por favor.\nUn saludo,\n{}",
        "Proszę. Pozdrawiam, {}",
        "Proszę.\nPozdrawiam,\n{}",
        "Tack. Mvh {}",
        "Tack.\nMvh\n{}",
        "{} is my name",
    ],
)
def test_only_the_name_is_replaced_beside_a_title_or_a_parting(text: str):
    assert said(text.format("Juana Brugnaro")) == text.format("<NAME_1> <NAME_2>")


@pytest.mark.parametrize(
    "text",
    [
        "I'm American, and I'm Sorry. I am Not sure.",
        "my name is not on the list",
        "the file name is report.txt, API name: get nodes list",
        "call me back later, or call me tomorrow",
        "It's New York time",
        "call me anything, or call me something else",
        "a passenger named in the list",
        "Ich heiße Sie willkommen, me llamo a las tres",
        "I'm Sr Software Engineer, call me Dr.",
        "Bonjour Madame Monsieur",
        "I miss New York. Sr. Manager",
        "\u0441 уважением, жду ответа",
        "Best regards, Support Team",
        "Un saludo, Gracias",
        "Mit freundlichen Grüßen Ihr Team",
        "Viele Grüße aus Berlin, viele Grüße Berlin",
        "Thanks, Everyone",
        "田中と言います。株式会社小林と申します",
        "This is my name. What is my name? Here Below is my name",
        "A reservation for two people under Windows",
    ],
)
def test_other_words_than_names_stay(text: str):
    assert said(text) == text


def test_parts_of_a_name_keep_their_placeholders_in_fields_ids_and_texts():
    call = logs.call("book", '{"passengers": [{"first_name": "Sofia", "last_name": "Kim"}]}')
    result = '{"user_id": "sofia_kim_7287", "name": {"first_name": "Sofia", "last_name": "Kim"}}'
    conversation = Conversation(
        [user("It's sofia_kim_7287."), call, {"role": "tool", "content": result}],
        answers=[logs.say("Thank you, Sofia Kim (Kim, S.)!")],
    )
    redacted = redact(conversation).conversation
    assert redacted.messages[0]["content"] == "It's <NAME_1>_<NAME_2>_7287."
    passenger = {"first_name": "<NAME_1>", "last_name": "<NAME_2>"}
    assert arguments(redacted.messages[1]) == {"passengers": [passenger]}
    assert redacted.answers[0]["content"] == "Thank you, <NAME_1> <NAME_2> (<NAME_2>, S.)!"


def test_a_name_field_counts_only_where_it_is_a_persons():
    call = logs.call("add", {"name": "Blue Mouse", "color": "blue"})
    assert redact(Conversation([user("add")], answers=[call])).conversation.answers == [call]
    call = logs.call("add", {"name": "Ann Lee", "email": "ann@acme.com"})
    answers = redact(Conversation([user("add")], answers=[call])).conversation.answers
    assert arguments(answers[0]) == {"name": "<NAME_1> <NAME_2>", "email": "<EMAIL_1>"}


@pytest.mark.parametrize(
    "text",
    [
        '{"contact": "Call us anytime"}',
        '{"full_name": "same as before", "middle_name": "None", "customer_name": "Not provided"}',
        '{"full_name": "...", "last_name": "."}',
        '{"participants": ["Two adults", "All Guests"], "driver": "Unicode driver"}',
        "<customer>I want it</customer>",
        "Customer: Good Morning",
    ],
)
def test_a_field_of_people_with_other_words_names_nobody(text: str):
    said_before = user("We want it, as before. Call us. None. Not provided? Good day, all.")
    conversation = Conversation([said_before, {"role": "tool", "content": text}])
    assert redact(conversation).conversation == conversation


@pytest.mark.parametrize("name", ["Ludwig van Beethoven", "Mr. J. O'Neil", "JANE DOE", "June May"])
def test_a_field_of_people_with_a_name_is_redacted(name: str):
    conversation = Conversation([user("book")], answers=[logs.call("book", {"passenger": name})])
    assert name.split(" ")[-1] not in str(redact(conversation).conversation.answers)
    call = logs.call("book", {"full_name": name, "first_name": "Will"})
    answers = redact(Conversation([user("book")], answers=[call])).conversation.answers
    assert "Will" not in str(answers)
    assert name.split(" ")[-1] not in str(answers)


def test_an_airport_code_is_not_a_name():
    call = logs.call("book", '{"first_name": "Mia", "last_name": "Jackson"}')
    conversation = Conversation([user("Fly Mia from MIA to DEN")], answers=[call])
    assert (
        redact(conversation).conversation.messages[0]["content"] == "Fly <NAME_1> from MIA to DEN"
    )


@pytest.mark.parametrize(
    ("question", "answer", "left"),
    [
        ("May I have your full name, please?", "Lucien Parlet", "<NAME_1> <NAME_2>"),
        ("What is the name of the city?", "New York", "New York"),
        ("Which city?", "New York", "New York"),
    ],
)
def test_an_answer_to_a_question_for_a_name_is_a_name(question: str, answer: str, left: str):
    asked = Conversation([user("hi"), logs.say(question), user(answer)])
    assert redact(asked).conversation.messages[2]["content"] == left
