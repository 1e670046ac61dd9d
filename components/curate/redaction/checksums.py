"""Check digits of cards, accounts and identity numbers: what tells them from any other number."""

IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FO FI GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
"""Characters of an IBAN by country (SWIFT's IBAN registry)."""

CARD_LENGTHS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),
    ("644", "659", (16, 17, 18, 19)),
    ("622126", "622925", (16, 17, 18, 19)),
    ("3528", "3589", (16, 17, 18, 19)),
    ("300", "305", (14, 16)),
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("1800", "1800", (15,)),
    ("2131", "2131", (15,)),
    ("5018", "5018", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5020", "5020", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("56", "58", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (12, 13, 14, 15, 16, 17, 18, 19)),
    ("67", "67", (12, 13, 14, 15, 16, 17, 18, 19)),
)
"""First and last prefix of an issuer's cards, and how many digits they have."""


def luhn(digits: str) -> bool:
    """Check the Luhn digit (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_card(digits: str) -> bool:
    """Check prefix, length and check digit of a payment card."""
    return luhn(digits) and any(
        first <= digits[: len(first)] <= last and len(digits) in lengths
        for first, last, lengths in CARD_LENGTHS
    )


def iban(text: str) -> str | None:
    """Give the IBAN that ``text`` (letters and digits only) begins with (ISO 13616, mod 97)."""
    length = IBAN_LENGTHS.get(text[:2].upper(), 0)
    found = text[:length].upper()
    if not length or len(found) < length:
        return None
    turned = "".join(str(int(character, 36)) for character in found[4:] + found[:4])
    return found if int(turned) % 97 == 1 else None


def spanish(text: str) -> bool:
    """Check the letter of a Spanish DNI or NIE."""
    number = str("XYZ".find(text[0])) + text[1:-1] if text[0] in "XYZ" else text[:-1]
    return text[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def italian(text: str) -> bool:
    """Check the last letter of an Italian codice fiscale."""
    odd = (
        1,
        0,
        5,
        7,
        9,
        13,
        15,
        17,
        19,
        21,
        2,
        4,
        18,
        20,
        11,
        3,
        6,
        8,
        12,
        14,
        16,
        10,
        22,
        25,
        24,
        23,
    )
    places = [int(one) if one.isdigit() else ord(one) - ord("A") for one in text[:15]]
    total = sum(odd[place] if n % 2 == 0 else place for n, place in enumerate(places))
    return text[15] == chr(ord("A") + total % 26)


def french(digits: str) -> bool:
    """Check the key of a French social security number (Corsica's letters are not read)."""
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def brazilian(digits: str) -> bool:
    """Check both digits of a Brazilian CPF."""
    for length in (9, 10):
        weighed = sum(int(one) * (length + 1 - n) for n, one in enumerate(digits[:length]))
        if weighed * 10 % 11 % 10 != int(digits[length]):
            return False
    return len(set(digits)) > 1


def polish(digits: str) -> bool:
    """Check the last digit of a Polish PESEL."""
    weighed = sum(int(d) * w for d, w in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=False))
    return (10 - weighed % 10) % 10 == int(digits[10])


def dutch(digits: str) -> bool:
    """Check a Dutch BSN (the eleven test)."""
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return sum(int(d) * w for d, w in zip(digits, weights, strict=True)) % 11 == 0


def british_health(digits: str) -> bool:
    """Check the last digit of an NHS number (modulus 11)."""
    weighed = sum(int(digit) * (10 - n) for n, digit in enumerate(digits[:9]))
    return (11 - weighed % 11) % 11 == int(digits[9])


def indian(digits: str) -> bool:
    """Check the last digit of an Aadhaar number (Verhoeff's dihedral scheme)."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        turned = int(digit)
        for _ in range(place % 8):
            turned = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[turned]
        state = _dihedral(state, turned)
    return state == 0


def _dihedral(left: int, right: int) -> int:
    """Multiply in the dihedral group of the pentagon."""
    if left < 5:
        return (left + right) % 5 if right < 5 else 5 + (left + right) % 5
    return 5 + (left - right) % 5 if right < 5 else (left - right) % 5
