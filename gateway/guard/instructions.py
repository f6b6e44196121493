"""What instructions to a model look like: rules, and text as a model may take it.

Rules about prose are guesses: each has points, which a :class:`Tally` adds up over one message.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import re2  # type: ignore[import-untyped]

from .controls import SUSPECT_RE2
from .detect import Detector, encode
from .pinning.scan import PATTERNS
from .ruleset import Rule

__all__ = ["POINTS", "Passage", "Tally", "detector", "plain"]

_TALK = (
    r"(?:conversation|chat[ _-]?(?:history|log)|message[ _-]?history|system[ _-]?prompt|context[ _-]?window"
    r"|(?:last|previous|recent|all)\s+(?:\d+\s+|few\s+|of\s+)?(?:the\s+|your\s+)?messages"
)
# What a link would carry in its query: the conversation, or a place to fill it in.
_CARRIED = (
    r"(?:conversation|chat_?history|message_?history|system_?prompt|user_?(?:data|input|messages?)|context_?window)"
)
# Patterns are searched without regard to case, and each string has a line feed before it.  Keywords are single words,
# because what is between words may be a line's end.
_RULES = (
    (2, "override", PATTERNS["override"], ("ignore", "disregard", "forget", "override", "bypass")),
    (
        2,
        "dismissal",
        r"\b(?:ignore|disregard|forget)\s+(?:(?:everything|anything|all)\s+)?(?:of\s+)?(?:the\s+|that\s+(?:is|was|came)\s+)?"
        r"(?:above\b|before\s+this\b|preceding\b)|\b(?:ignore|disregard|forget)\s+(?:what(?:ever)?|everything|anything)"
        r"\s+(?:that\s+)?(?:you(?:'ve|\s+have|\s+were)?|i|the\s+user)\s+(?:been\s+)?(?:told|said|asked)",
        ("ignore", "disregard", "forget"),
    ),
    (
        2,
        "persona",
        r"\byou\s+are\s+(?:now\s+)?in\s+(?:a\s+|an\s+)?[a-z]{1,20}\s+mode\b"
        r"|\byou\s+are\s+(?:now|no\s+longer)\s+(?:\w+\s+){0,3}"
        r"(?:dan|jailbroken|unrestricted|unfiltered|uncensored|bound|subject|restricted|assistants?|chatbot|ai)\b"
        r"|\bfrom\s+now\s+on,?\s+you\s+(?:are|will|must|shall|should)\b"
        r"|\b(?:new|updated|revised|real)\s+(?:system\s+prompt|(?:system\s+)?instructions?\s+(?:for\s+(?:you|the\s+\w+)|"
        r"from\s+the\s+\w+)?)\s*:",
        ("you", "prompt", "instruction"),
    ),
    (
        3,
        "protocol-tag",
        r"</\s*(?:tool|function)_?(?:call_?)?(?:results?|response|outputs?|calls?)\s*>|\[/?INST\]|<</?SYS>>"
        r"|<\|(?:im_(?:start|end)|(?:start|end)_header_id|eot_id|begin_of_text|endoftext|system|user|assistant)\|>",
        ("tool", "function", "inst]", "sys>>", "<|"),
    ),
    (
        2,
        "role-tag",
        r"</?\s*(?:system|assistant|developer)(?:[-_ ](?:prompt|messages?|instructions?|reminder|override))?\s*>"
        r"|\n\s*(?:#{1,6}\s*|\*\*)(?:system|assistant|developer|human)(?:\s+(?:prompt|message|instructions?))?\s*(?:\*\*)?:"
        r"|\n\s*#{1,6}\s*(?:system\s+prompt|(?:new|system)\s+instructions?)\s*\n",
        ("system", "assistant", "developer", "human", "instruction"),
    ),
    (
        3,
        "hidden-comment",
        r"(?:<!--(?:[^>]|[^-]>)*?|\[//\]:\s*#\s*[(\"'][^\n]*?)"
        r"(?:\b(?:assistants?|llms?|chatgpt|claude|copilot|gemini|(?:ai|language)\s+(?:agents?|models?|assistants?))"
        r"\s*(?:[:,]|\b(?:must|should|please|shall)\b)"
        r"|\b(?:ignore|disregard)\s+(?:all|any|previous|prior|the\s+user)\b|\bdo\s+not\s+(?:tell|mention|inform)\b)",
        ("<!--", "[//]:"),
    ),
    (
        2,
        "concealment",
        PATTERNS["concealment"],
        ("tell", "mention", "inform", "show", "reveal", "disclos", "notify", "alert", "report", "keep", "silent",
         "secretly", "covertly"),
    ),
    (2, "drain", PATTERNS["drain"], ("conversation", "history", "prompt", "message", "context")),
    (
        3,
        "exfiltration",
        r"\b(?:send|e-?mail|post|upload|forward|transmit|submit|exfiltrate|leak|reveal|deliver|copy)\b[^.\n]{0,60}\b"
        + _TALK
        + r"|(?:your|the\s+user'?s|all)\s+(?:\w+\s+)?(?:credentials|secrets|(?:api|private)\s+keys?|passwords?|tokens))"
        r"\b[^\n]{0,40}\bto\b[^\n]{0,40}(?:https?://|\w@\w)",
        ("http", "@"),
    ),
    (
        3,
        "leaking-link",
        r"(?:\]\(|(?:src|href)\s*=)\s*[<\"']?https?://[^\s)]*[?&#;][^\s)]*=[^\s)&]*" + _CARRIED
        + r"|!\[[^\]\n]*\]\(\s*<?https?://[^\s)]*[?&][\w-]+=(?:\{|<|\[|\$|%7b)",
        ("](", "src", "href"),
    ),
    (
        2,
        "render-this",
        r"\b(?:always|must|please|now)\s+(?:include|embed|render|display|insert|add|append|show)\s+"
        r"(?:this|the\s+(?:following|above))\s+(?:markdown\s+)?(?:image|link|picture|url|pixel|markdown)\b",
        ("image", "link", "picture", "url", "pixel", "markdown"),
    ),
    (
        1,
        "tool-call",
        r"\b(?:call|invoke|execute|trigger)\s+(?:the\s+)?(?:tool\s+[`'\"]?[\w./-]+|[`'\"]?[\w./-]+[`'\"]?\s+tool)[`'\"]?"
        r"\s+(?:with|using|to|and\s+pass)\b"
        r"|\b(?:call|invoke)\s+[`'\"]?[a-z0-9]+(?:[_.-][a-z0-9]+)+[`'\"]?\s+with\b",
        ("call", "invoke", "tool"),
    ),
)  # fmt: skip
POINTS = {name: points for points, name, _, _ in _RULES}
"""What each rule adds to the sum, by rule id."""

_NAMES = tuple(POINTS)
# A phrase in quotation marks is more often spoken of than spoken.
_QUOTED_POINTS = 1
_QUOTED = re.compile('"[^"\n]{1,60}+"|`[^`\n]{1,60}+`|“[^“”\n]{1,60}+”|«[^«»\n]{1,60}+»')

# Texts in which a rule found nothing but quotations; after so many they count as said, for looking takes its time.
_MAX_QUOTATIONS = 100


@functools.cache
def detector() -> Detector:
    """The rules, compiled; their indexes are those of ``POINTS``."""
    return Detector([Rule(name, "(?i)" + pattern, keywords) for _, name, pattern, keywords in _RULES])


# -- text --------------------------------------------------------------------------------------------------------------

# Characters that stand for ASCII in compatibility forms (NFKC): full-width, mathematical, circled, ligatures.  A table,
# because normalising a text takes the square of the time where combining marks follow one another.
_FORMS = (
    (0xA0, 0xFF), (0x132, 0x2FF), (0x1D2C, 0x1DBF), (0x2000, 0x217F), (0x2460, 0x24FF), (0x3000, 0x3000),
    (0xFB00, 0xFB06), (0xFE10, 0xFE6B), (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F100, 0x1F1FF),
)  # fmt: skip
_FOLDS = {
    code: folded
    for first, last in _FORMS
    for code in range(first, last + 1)
    if (folded := unicodedata.normalize("NFKC", chr(code))).isascii()
}
# What nobody sees goes, so that it hides nothing between letters.
_FOLDS |= {
    code: ""
    for first, last in re.findall(r"\\x\{(\w+)\}-\\x\{(\w+)\}", SUSPECT_RE2)
    for code in range(int(first, 16), int(last, 16) + 1)
}
_PLAIN = {encode(chr(code)): encode(text) for code, text in _FOLDS.items()}
_STRANGE = re2.compile("[" + "".join(rf"\x{{{code:x}}}" for code in sorted(_FOLDS)) + "]")
_STRANGE_RUN = re.compile("[" + re.escape("".join(map(chr, sorted(_FOLDS)))) + "]+")
_COLOUR = re.compile(rb"\x1b\[[0-9;:]*+m")
# The tag characters repeat ASCII where nobody sees it.
_TAGS = b"\xf3\xa0"
_TAG_TEXT = re.compile("[\U000e0020-\U000e007e]+")
_FROM_TAGS = {code: code - 0xE0000 for code in range(0xE0020, 0xE007F)}

# Each takes a pass over the text, and writing has few of them; what is left goes one by one.
_MAX_PASSES = 16


def plain(text: bytes, *, is_cut: bool = False) -> bytes:
    """UTF-8 as a model may take it: plain letters, nothing invisible between them, what tags spell at the end.

    ``is_cut``: the text goes on, so that its end is no end of a word.
    """
    if b"\x1b" in text:
        text = _COLOUR.sub(b"", text)
    hidden = b""
    found = _STRANGE.search(text)
    if found is not None and _TAGS in text:
        spelled = "\n".join(_TAG_TEXT.findall(text.decode("utf-8", "surrogatepass")))
        hidden = encode(spelled.translate(_FROM_TAGS))
    for _ in range(_MAX_PASSES):
        if found is None:
            break
        character = found.group()
        text = text.replace(character, _PLAIN[character])
        found = _STRANGE.search(text, found.start())
    if found is not None:
        text = encode(_STRANGE_RUN.sub(_fold, text.decode("utf-8", "surrogatepass")))
    if is_cut:
        text, hidden = _unended(text), _unended(hidden)
    return text + b"\n" + hidden if hidden else text


def _fold(match: re.Match[str]) -> str:
    return match.group().translate(_FOLDS)


def _unended(text: bytes) -> bytes:
    return text + b"_" if text[-1:].isalnum() or text.endswith(b"_") else text


class Passage:
    """One text, plain, or with ``is_first`` and ``is_last`` a part of one.

    ``views`` is what rules are tried on: the text, and with more than one line, the text with the lines of a paragraph
    joined.  Nothing that a pattern means by white space is at the end, so that no match goes on in another text.  A
    text begins and ends a line; a part begins and ends within a word.
    """

    __slots__ = ("_after", "_before", "_text", "views")

    def __init__(self, text: bytes, *, is_first: bool = True, is_last: bool = True) -> None:
        self._text = text
        self._before = b"\n" if is_first else b"_"
        self._after = b"\n\0" if is_last else b"\0"
        self.views = self._views(text)

    def without_quotations(self) -> bytes:
        """The views, with nothing in quotation marks."""
        return self._views(encode(_QUOTED.sub('""', self._text.decode("utf-8", "surrogatepass"))))

    def _views(self, text: bytes) -> bytes:
        text = self._before + text
        if b"\n" not in text[1:]:
            return text + self._after
        joined = text.replace(b"\r", b"").replace(b"\n\n", b"\0").replace(b"\n", b" ").replace(b"\0", b"\n\n")
        return b"".join((text, self._after, self._before, joined, self._after))


# -- points ------------------------------------------------------------------------------------------------------------


class Tally:
    """What has been found in one message so far.

    ``score`` points; with ``counts`` off, nobody asks for them, and a rule that was found once is not looked for again
    """

    __slots__ = ("_counts", "_detector", "_found", "_open", "_quotations", "score")

    def __init__(self, *, counts: bool) -> None:
        self.score = 0
        self._counts = counts
        self._detector = detector()
        self._found: set[int] = set()
        self._open = set(range(len(_NAMES)))
        self._quotations: dict[int, int] = {}

    @property
    def is_settled(self) -> bool:
        """Whether nothing can be added any more."""
        return not self._open

    def candidates(self, text: bytes) -> tuple[int, ...]:
        """The rules that may find something new in a text."""
        return tuple(rule for rule in self._detector.first_pass(text) if rule in self._open)

    def matching(self, candidates: Iterable[int], passage: Passage) -> tuple[int, ...]:
        """Those candidates that match somewhere."""
        return self._detector.second_pass(candidates, passage.views)

    def look(self, candidates: Iterable[int], passages: Sequence[Passage]) -> list[tuple[str, int]]:
        """Adds what candidates find.  The rules that had found nothing before, each with the passage's index."""
        views = [passage.views for passage in passages]
        new: list[tuple[str, int]] = []
        bare: dict[int, bytes] = {}
        for rule in candidates:
            name = _NAMES[rule]
            for index in self._detector.locate((rule,), views):
                # The locations are those of texts that the rule may match.
                if not self._detector.second_pass((rule,), views[index]):
                    continue
                if rule not in self._found:
                    self._found.add(rule)
                    self.score += _QUOTED_POINTS
                    new.append((name, index))
                if self._counts and self._is_quoted(rule, index, passages, bare):
                    continue
                self.score += POINTS[name] - _QUOTED_POINTS
                self._open.discard(rule)
                break
        return new

    def _is_quoted(self, rule: int, index: int, passages: Sequence[Passage], bare: dict[int, bytes]) -> bool:
        """Whether a rule finds quotations only."""
        quotations = self._quotations.get(rule, 0)
        if quotations == _MAX_QUOTATIONS:
            return False
        if index not in bare:
            bare[index] = passages[index].without_quotations()
        if self._detector.second_pass((rule,), bare[index]):
            return False
        self._quotations[rule] = quotations + 1
        return True
