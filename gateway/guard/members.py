"""Members whose name says that their text is a secret, and where JSON that is itself text has such members.

Servers repeat structured content as JSON in a text (a SHOULD of the specification), so each secret comes twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import re2  # type: ignore[import-untyped]

__all__ = ["DEFAULT_MEMBERS", "EmbeddedMembers", "normalise"]

# Members whose text is a secret, whatever it looks like: in lower case, without "_", "-", "." and spaces.  Names that
# honest data uses for other things - key, tokens, nextPageToken, hasPassword - are left out.
DEFAULT_MEMBERS = frozenset(
    (
        "password", "passwd", "pwd", "passphrase", "dbpassword", "databasepassword", "userpassword",
        "adminpassword", "rootpassword", "masterpassword", "mysqlpassword", "postgrespassword", "pgpassword",
        "redispassword", "smtppassword", "ldappassword", "secret", "secretkey", "clientsecret", "appsecret",
        "sharedsecret", "webhooksecret", "sessionsecret", "jwtsecret", "signingsecret", "token", "accesstoken",
        "refreshtoken", "idtoken", "authtoken", "bearertoken", "sessiontoken", "securitytoken", "apitoken",
        "bottoken", "githubtoken", "gitlabtoken", "slacktoken", "npmtoken", "apikey", "apisecret",
        "secretaccesskey", "awssecretaccesskey", "accesskeysecret", "accountkey", "storagekey", "privatekey",
        "sshprivatekey", "signingkey", "encryptionkey", "masterkey", "credential", "credentials",
        "authorization", "proxyauthorization", "xapikey", "xauthtoken", "setcookie", "connectionstring",
    )
)  # fmt: skip

# What ``normalise`` drops.
_DROPPED = str.maketrans("", "", "_-. ")
_BETWEEN = "[-_. ]*"


def normalise(member: str) -> str:
    """The name as members are compared: without regard to case, ``_``, ``-``, ``.`` and spaces."""
    return member.casefold().translate(_DROPPED)


class EmbeddedMembers:
    """Finds ``"password": "..."`` in text, also where the quotes are escaped, as in JSON inside JSON.

    ``names``   normalised names of members
    ``pattern`` RE2 syntax, to be searched without regard to case: matches where a value that is not empty begins
    """

    __slots__ = ("_program", "pattern")

    def __init__(self, names: Iterable[str]) -> None:
        alternatives = "|".join(_BETWEEN.join(map(re2.escape, name)) for name in sorted(names))
        name = f'"{_BETWEEN}(?:{alternatives}){_BETWEEN}'
        self.pattern = f"{name}(?:{'|'.join(map(_value, _LEVELS))})"
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = False
        # Without groups RE2 needs its DFA alone, and is linear with a small factor.
        self._program = re2.compile(f"{name}(?:{'|'.join(_value(level) + '+' for level in _LEVELS)})".encode(), options)

    def values(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where the values are that are not empty, without their quotes, in order.  Linear in the text's length.

        A value ends at its quote, or where the text or the line is cut off before it.
        """
        for match in self._program.finditer(text):
            start, end = match.span()
            # No name has a colon, and no value begins before one.
            yield text.index(b'"', text.index(b":", start)) + 1, end


# How many backslashes are before a quote in JSON, in JSON in JSON, and so on: each level doubles them and adds one.
_LEVELS = (0, 1, 3, 7)


def _value(level: int) -> str:
    """From the end of a name to the first character of its value; repeated at its end, the whole value.

    A quote belongs to the value only if one more level of escaping is before it, and each two levels cancel out.
    """
    quote = (rf"\\{{{level}}}" if level else "") + '"'
    period = 2 * (level + 1)
    inner = period - 1
    return (
        rf"{quote}\s*:\s*{quote}"
        rf'(?:[^"\\\n]|\\{{{period}}}|\\{{{inner}}}"|\\{{1,{inner}}}[^"\\\n])'
    )
