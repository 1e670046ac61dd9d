"""What the name of a field says about its value: arguments and results call things by name."""

import re
from functools import lru_cache

from components.curate.redaction import addresses, secrets
from components.curate.redaction.kinds import Kind
from components.curate.redaction.pattern import digits_of
from components.curate.redaction.words import PEOPLE

PERSON = "personname"
"""The field of a ``name`` that stands in an object about a person."""

FIELDS: dict[str, Kind] = {
    field: kind
    for kind, fields in {
        Kind.NAME: "firstname lastname fullname surname givenname familyname middlename maidenname"
        " passengername customername guestname contactname cardholdername cardholder nameoncard"
        " accountholder patientname recipientname sendername attendeename travelername drivername"
        " studentname clientname membername applicantname employeename bookername ownername"
        f" {PERSON}",
        Kind.PHONE: "phone phonenumber mobile mobilenumber mobilephone cell cellphone telephone"
        " telephonenumber contactnumber faxnumber",
        Kind.ADDRESS: "address1 address2 addressline addressline1 addressline2 street streetaddress"
        " homeaddress shippingaddress billingaddress mailingaddress deliveryaddress",
        Kind.SSN: "ssn socialsecuritynumber",
        Kind.CARD: "cardnumber creditcard creditcardnumber debitcardnumber",
        Kind.NATIONAL_ID: "passport passportnumber passportno nationalid nationalidnumber taxid"
        " driverslicense driverlicense driverslicensenumber driverlicensenumber licensenumber",
        Kind.PASSWORD: "password passwd pwd passphrase passcode newpassword oldpassword"
        " currentpassword userpassword secret apikey accesstoken authtoken refreshtoken apitoken"
        " clientsecret privatekey secretkey",
    }.items()
    for field in fields.split()
}

USERS = frozenset({"userid", "username", "user", "customerid"})
"""Fields of ids, which may be made of a name."""

TELLING = PEOPLE | USERS | FIELDS.keys()
"""Fields whose value may be replaced for what they are called."""

LOOKS_LIKE_A_PERSON = re.compile(r"[^\W\d_a-z][\w'\u2019.-]*(?: [^\W\d_][\w'\u2019.-]*){1,3}")


@lru_cache(maxsize=8192)
def normal(field: str) -> str:
    """Write ``first_name``, ``firstName`` and ``First Name`` the same."""
    return re.sub(r"[^a-z0-9]", "", field.lower()) if not field.islower() or "_" in field else field


def kind_of(field: str, text: str) -> Kind | None:
    """Say what the value of a field is; ``None`` if neither its name nor its form says so."""
    if field in PEOPLE:
        return Kind.NAME if LOOKS_LIKE_A_PERSON.fullmatch(text) else None
    kind = FIELDS.get(field)
    return kind if kind is not None and is_plausible(kind, text) else None


def is_plausible(kind: Kind, text: str) -> bool:
    """Check that a value has the form of its kind: fields hold placeholders and words, too."""
    if not text.strip() or "<" in text or len(text) > 200:
        return False
    match kind:
        case Kind.NAME:
            return len(text) < 60 and not any(one.isdigit() for one in text)
        case Kind.PHONE:
            return 7 <= len(digits_of(text)) <= 15 and not re.search(r"[a-zA-Z]{4}", text)
        case Kind.CARD:
            return 12 <= len(digits_of(text)) <= 19 and not re.search(r"[a-zA-Z]", text)
        case Kind.SSN:
            return len(digits_of(text)) == 9
        case Kind.ADDRESS:
            return any(one.isdigit() for one in text)
        case Kind.NATIONAL_ID:
            return len(text) >= 5 and any(one.isdigit() for one in text)
        case _:
            return secrets.is_value(text)


def key(kind: Kind, text: str) -> str:
    """Give the one form of all the ways to write a field's value."""
    match kind:
        case Kind.PHONE:
            digits = digits_of(text)
            return digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
        case Kind.CARD | Kind.SSN:
            return digits_of(text)
        case Kind.PASSWORD:
            return text
        case Kind.ADDRESS:
            return addresses.key(text)
        case Kind.NATIONAL_ID:
            return "".join(one for one in text if one.isalnum()).upper()
        case _:
            return " ".join(text.lower().split())
