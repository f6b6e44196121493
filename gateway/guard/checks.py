"""What digits and letters of a match have to fulfil, where a pattern alone finds too much."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

__all__ = ["CHECKS", "entropy", "iban", "luhn", "phone"]

_DIGITS = b"0123456789"
# Lengths of the IBAN registry (ISO 13616), by country.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA OM SO", 23: "AE GI IL IQ TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def luhn(found: bytes) -> int:
    """How many octets of the match are a card's number (ISO/IEC 7812-1, annex B): all or none."""
    digits = [octet - 48 for octet in found if octet in _DIGITS]
    total = sum(digits[-1::-2]) + sum(digit * 2 - (9 if digit > 4 else 0) for digit in digits[-2::-2])
    return 0 if total % 10 or len(set(digits)) < 2 else len(found)


def iban(found: bytes) -> int:
    """How many octets of the match are an IBAN (ISO 13616, ISO 7064 MOD 97-10); what follows it may look alike."""
    length = _IBAN_LENGTHS.get(found[:2].decode("ascii", "replace"), 0)
    taken = bytearray()
    for end, octet in enumerate(found, 1):
        if octet != 0x20:
            taken.append(octet)
        if len(taken) == length:
            number = "".join(str(int(chr(letter), 36)) for letter in taken[4:] + taken[:4])
            return end if int(number) % 97 == 1 else 0
    return 0


def phone(found: bytes) -> int:
    """How many octets of the match are a telephone number of 8 to 15 digits (ITU-T E.164): all or none."""
    return len(found) if 8 <= sum(octet in _DIGITS for octet in found) <= 15 else 0


# By the name that rules use: how many octets of a match are what the rule looks for.
CHECKS: dict[str, Callable[[bytes], int]] = {"luhn": luhn, "iban": iban, "phone": phone}

# More than this says nothing new.
_MAX_ENTROPY_OCTETS = 1024


def entropy(secret: bytes) -> float:
    """Shannon's entropy in bits per octet, of the beginning of a long secret."""
    secret = secret[:_MAX_ENTROPY_OCTETS]
    return -sum(count / len(secret) * math.log2(count / len(secret)) for count in Counter(secret).values())
