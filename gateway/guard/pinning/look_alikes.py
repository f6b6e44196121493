"""Names that people and models take for one another: the same skeleton, in the sense of Unicode's UTS #39.

The table holds the letters that occur in look-alikes of Latin names, not all of Unicode's confusables: a name in
another script is no look-alike of anything, and the names of one server are never compared with each other.
"""

from __future__ import annotations

import unicodedata

__all__ = ["skeleton"]

# Cyrillic; Greek; Armenian and Latin's small capitals; letters with strokes.  All in lower case already.
_LETTERS = str.maketrans(
    {
        **dict(zip("авеёкмнорстухіїјѕԁԛԝһӏѵԍьпгзч", "abeekmhopctyxiijsdqwhlvgbnrey", strict=True)),
        **dict(zip("αβγεικνορτυχωηςϲϳ", "abyeikvoptuxwnccj", strict=True)),
        **dict(zip("օսոհցզաքɑɡıȷɩʟʀɢᴀᴄᴅᴇᴊᴋᴍɴᴏᴘᴛᴜᴠᴡᴢꜱ", "ounhgqwpagljilrgacdejkmnoptuvwzs", strict=True)),
        **dict(zip("łøđħŧ", "lodht", strict=True)),
        # Digits and signs; i, l and 1 are one, because the capital I is.
        **dict(zip("01i|!3$@", "ollllesa", strict=True)),
    }
)
# A name of the specification has 128 characters at most (rule 7.29); of a longer one the beginning is compared.
_MAX_CHARS = 512
_PAIRS = (("rn", "m"), ("vv", "w"))
_SEPARATORS = str.maketrans("", "", "-_. /:")


def skeleton(name: str) -> str:
    """What is left of a name when everything is gone that is easily overlooked; equal for names that look alike."""
    # Normalising takes the square of the time where marks follow one another, and the length is the server's.
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name[:_MAX_CHARS]).casefold())
    # Marks, and characters that are not seen at all.
    text = "".join(each for each in text if unicodedata.category(each) not in ("Mn", "Me", "Cf", "Cc"))
    text = text.translate(_LETTERS).translate(_LETTERS).translate(_SEPARATORS)
    for pair, letter in _PAIRS:
        text = text.replace(pair, letter)
    return text
