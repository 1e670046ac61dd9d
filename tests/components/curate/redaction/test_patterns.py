import pytest

from components.curate.settings import Redaction
from tests.support.talk import said

# Keys are put together here, so that no scanner of secrets takes this file for a leak.
AWS = "AKIA" + "IOSFODNN7QZXCVBN"
GITHUB = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
AWS_SECRET = "wJalrXUtnFEMI" + "/K7MDENG/bPxRfiCYzQ8tLmXpKq"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0In0.c2lnbmF0dXJl"
SLACK = "xoxb-" + "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx"
PEM = "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE" + " KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("mail Ann.Lee+x@mail.acme.co.uk.", "mail <EMAIL_1>."),
        ("call 212-555-0134 now", "call <PHONE_1> now"),
        ("call (212) 555-0134 x12", "call <PHONE_1>"),
        ("0044 20 7946 0958 or +44 20 7946 0958", "<PHONE_1> or <PHONE_1>"),
        ("0171/2345678, 030 / 901 820 15", "<PHONE_1>, <PHONE_2>"),
        ("06.12.34.56.78", "<PHONE_1>"),
        ("(11) 91234-5678, 8 (495) 123-45-67", "<PHONE_1>, <PHONE_2>"),
        ("Telefon: 01712345678, móvil 612345678", "Telefon: <PHONE_1>, móvil <PHONE_2>"),
        ("电话\uff1a13800138000", "电话\uff1a<PHONE_1>"),
        ("tel:2125550134", "tel:<PHONE_1>"),
        ("or +49 30 901820.", "or <PHONE_1>."),
        ("at 020 7946 0958", "at <PHONE_1>"),
        ("Rappelez-moi au 612345678", "Rappelez-moi au <PHONE_1>"),
        ("Chiamatemi al 3471234567", "Chiamatemi al <PHONE_1>"),
        ("Rufen Sie mich unter 1712345678 an", "Rufen Sie mich unter <PHONE_1> an"),
        ("Proszę dzwonić pod numer 601234567", "Proszę dzwonić pod numer <PHONE_1>"),
        ("Llámame al 612345678", "Llámame al <PHONE_1>"),
        ("Me ligue no 912345678", "Me ligue no <PHONE_1>"),
        ("Bel me op 612345678", "Bel me op <PHONE_1>"),
        ("my phone is 2125550134", "my phone is <PHONE_1>"),
        ("card 4111 1111 1111 1111, thanks", "card <CARD_1>, thanks"),
        ("4111111111111111", "<CARD_1>"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN <IBAN_1> please"),
        (
            "DE89 3704 0044 0532 0130 00 DE89 3704 0044 0532 0130 00 GB29NWBK60161331926819",
            "<IBAN_1> <IBAN_1> <IBAN_2>",
        ),
        ("QX45 was paid to DE89 3704 0044 0532 0130 00", "QX45 was paid to <IBAN_1>"),
        ("to SO21 1000 0010 0100 0100 141", "to <IBAN_1>"),
        ("ssn 078-05-1120", "ssn <SSN_1>"),
        ("my ssn is 078051120", "my ssn is <SSN_1>"),
        ("dni 12345678Z", "dni <NATIONAL_ID_1>"),
        ("codice RSSMRA85T10A562S", "codice <NATIONAL_ID_1>"),
        ("cpf 529.982.247-25", "cpf <NATIONAL_ID_1>"),
        ("meu CPF é 52107570647.", "meu CPF é <NATIONAL_ID_1>."),
        ("my pesel 44051401359", "my pesel <NATIONAL_ID_1>"),
        ("aadhaar 2341 2341 2346", "aadhaar <NATIONAL_ID_1>"),
        ("passport number X1234567", "passport number <NATIONAL_ID_1>"),
        ("from 203.0.113.7 today", "from <IP_1> today"),
        ("host 2001:db8::8a2e:370:7334", "host <IP_1>"),
        ("825 Laurel Lane, Suite 595, Houston", "<ADDRESS_1>, Houston"),
        ("wohne Hauptstraße 12a", "wohne <ADDRESS_1>"),
        ("12 rue de la Paix, Paris", "<ADDRESS_1>, Paris"),
        (f"key {AWS}.", "key <SECRET_1>."),
        (f"token {GITHUB}, ok", "token <SECRET_1>, ok"),
        (f"jwt {JWT}", "jwt <SECRET_1>"),
        (f"slack {SLACK}.", "slack <SECRET_1>."),
        (PEM, "<SECRET_1>"),
        ("postgres://ann:s3cret@db.acme.com:5432/x", "<SECRET_1>"),
        ("password=hunter2 ok", "password=<PASSWORD_1> ok"),
        ('"api_key": "a8f5e1c9"', '"api_key": "<PASSWORD_1>"'),
        ("my password is Tr0ub4dor.", "my password is <PASSWORD_1>."),
        (f"AWS_SECRET_ACCESS_KEY={AWS_SECRET}", "AWS_SECRET_ACCESS_KEY=<PASSWORD_1>"),
        (f'"SecretAccessKey": "{AWS_SECRET}"', '"SecretAccessKey": "<PASSWORD_1>"'),
        ("secret_access_key=/K7MDENG/bPxRfiCYzQ8tLmXpKq", "secret_access_key=<PASSWORD_1>"),
        ("SECRET_KEY = 'django-7x!q'", "SECRET_KEY = '<PASSWORD_1>'"),
        ("Authorization: Basic YW5uOnNlc2FtZQ==", "Authorization: Basic <SECRET_1>"),
        (
            "https://a.com/f?id=7&X-Amz-Signature=0a1b2c3d4e5f6071",
            "https://a.com/f?id=7&X-Amz-Signature=<SECRET_1>",
        ),
        ("https://a.com/?token=abcd1234efgh#top", "https://a.com/?token=<SECRET_1>#top"),
        ("Mein Passwort ist Tr0ub4dor", "Mein Passwort ist <PASSWORD_1>"),
        ("mot de passe : hunter2", "mot de passe : <PASSWORD_1>"),
        ("我的密码是hunter2", "我的密码是<PASSWORD_1>"),
        (
            "4111\u202f1111\u202f1111\u202f1111 or 4111\u20111111\u20111111\u20111111",
            "<CARD_1> or <CARD_1>",
        ),
        ("4111.1111.1111.1111 or 4111 - 1111 - 1111 - 1111", "<CARD_1> or <CARD_1>"),
        ("ann,4111111111111111,12/27;4111111111111111/12", "ann,<CARD_1>,12/27;<CARD_1>/12"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "<IBAN_1>"),
        ("ssn 078\u201105\u20111120", "ssn <SSN_1>"),
        ("\uff14\uff11\uff11\uff11" + "\uff11" * 12, "<CARD_1>"),
        ("\U0001d7d2" + "\U0001d7cf" * 15, "<CARD_1>"),  # mathematical digits, beyond 16 bits
        ("\u0660\u0665\u0660 \u0661\u0662\u0663 \u0664\u0665\u0666\u0667", "<PHONE_1>"),
        ("我的卡号是4111111111111111谢谢", "我的卡号是<CARD_1>谢谢"),
        ("카드는 4111-1111-1111-1111입니다", "카드는 <CARD_1>입니다"),
        ("電話は090-1234-5678です", "電話は<PHONE_1>です"),
        ("บัตร84.17.203.9ครับ", "บัตร<IP_1>ครับ"),
        ("邮箱是wei@qq.com谢谢 wei@qq.com", "邮箱是<EMAIL_1>谢谢 <EMAIL_1>"),
    ],
)
def test_a_value_becomes_a_placeholder_of_its_kind(text: str, left: str):
    assert said(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "ref GB58 1234 6016 1331 9268 19, a bank is letters there",
        "order 4821773901 shipped on 2024-05-15 15:00:00",
        "reservation 4F2X9Q, flight HAT017 at 08:15:30",
        "timestamp 1747000000 and 1747000000123",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "version 10.0.19.4041, v1.2.3.4, Chrome/124.0.0.0 and section 3.1.4.1",
        "Rappelez-moi au sujet de la commande 612345678",
        "rufen Sie die Bestellung unter 4821773901 auf",
        "zamówienie pod numerem 4821773901",
        "CPF 52107570648, pedido",
        "pedido 52107570647",
        "call about order 4821773901, or the phone model 1234567",
        "clone git@github.com:acme/app.git, src=logo@2x.png",
        "01/02/2024, 05.12.2024, 01.02.03.04.05.06",
        "card ending in 4111, or 4111 1111 1111 1112",
        "listen on 127.0.0.1 or 0.0.0.0",
        "std::vector, a::b and 12:34:56",
        "prices 300 400 5000, $1,299.99, 1.500.000",
        "coordinates 37.7749, -122.4194",
        "password: string (required)",
        "my password is wrong and my token is invalid",
        "set YOUR_API_KEY, api_key=YOUR_API_KEY",
        'password = os.environ["DB_PASSWORD"], client(api_key=settings.OPENAI_API_KEY)',
        "const apiKey = process.env.API_KEY; this.secret = secrets.token_hex(32)",
        "password: z.string().min(8), auth_token=request.headers.get('X')",
        "psql --password=$DB_PASS, set password = :password, passwd = user_password",
        "PWD=/home/app/src, private_key: '/etc/ssl/key.pem', secret=./keys/db.txt",
        "the password is case-sensitive, the api key is read-only",
        "5 people on the 3rd Street of 10",
        "decorate with @cached, mail me @ noon",
        "a hash 9f86d081884c7d659a2feaa0c55ad015",
        "https://acme.com/a/b?page=2",
    ],
)
def test_lookalikes_of_values_stay(text: str):
    assert said(text) == text


def test_a_kind_can_be_switched_off():
    text = "from 203.0.113.7 by ann@acme.com"
    assert said(text, Redaction.model_validate({"off": ["ip"]})) == "from 203.0.113.7 by <EMAIL_1>"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"allow": ["Support@acme.com"]}, id="value"),
        pytest.param({"allow": ["@acme.com"]}, id="domain"),
        pytest.param({"allow_patterns": [r"[a-z]+@acme\..*"]}, id="pattern"),
    ],
)
def test_an_allowed_value_stays(settings: dict[str, object]):
    allowed = Redaction.model_validate(settings)
    assert said("support@acme.com or ann@b.com", allowed) == "support@acme.com or <EMAIL_1>"


def test_an_invalid_pattern_is_rejected():
    with pytest.raises(ValueError, match="invalid regular expression"):
        Redaction(allow_patterns=("(",))
