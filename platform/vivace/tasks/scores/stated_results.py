r"""Where a worked answer states its result, and which number that is: in a box, after `####`, in words."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

LONGEST = 20_000
"""Characters of an answer that are looked at, from its end."""
_LARGEST_EXPONENT = 400
"""Of ten; more would take memory, and is nobody's result."""

_WRAP = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|tt|normal)|mbox|hbox|boldsymbol|bm|emph)\s*"
_SPACE = r"[\s~\u00a0\u2007\u2009\u202f]"
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d))"
_NUMBER = re.compile(
    r"(?P<sign>(?:(?<![\w.)])[-−–+])?)"
    rf"(?:(?P<whole>\d+)\s+(?P<part>\d+)\s*/\s*(?P<parts>\d+)(?![\d.])"
    r"|(?P<power>10\s*\^\s*(?P<lone>[-−+]?\d+))(?!\d)"
    rf"|(?P<above>{_PLAIN})"
    r"(?:[eE](?P<e>[-+]?\d+)(?!\w)|\s*(?:×|\*|·|\\times|\\cdot)\s*10\s*\^\s*(?P<ten>[-−+]?\d+)"
    rf"|\s*/\s*(?P<below>-?{_PLAIN}))?)"
)
_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:\{\s*([-−+]?\d+(?:\.\d+)?)\s*\}|(\d))\s*(?:\{\s*([-−+]?\d+(?:\.\d+)?)\s*\}|(\d))"
)
_UNIT = re.compile(
    r"\s*(?:(?:cm|mm|km|m|kg|g|mg|s|h|hr|min|ft|in|mi|lb|oz|L|l|mL|ml)\b|(?<=\s)[A-Za-z]{2,}\.?(?:[\s-]+[A-Za-z]{2,}\.?){0,4})"
    r"(?:\s*/\s*[A-Za-z]+|\s+per\s+[A-Za-z]+)?(?:\s*\^?[23²³])?\s*"
)
_NO_UNIT = re.compile(r"\b(?:pi|sqrt|or|and|to|plus|minus|times|over|log|ln|sin|cos|tan|base|mod|infinity)\b")
_GOES_ON = re.compile(r"\s*(?:\^\s*\(?[-−+]?\d|\\(?:sqrt|pi)(?![a-z])|[√π])")
"""What makes a number in front of it a part of a larger result."""
_NEXT_TASK = re.compile(
    r"^[ \t#*]*(?:(?:next\s+)?(?:question|problem|exercise)\b|q\s*\d*\s*:|(?:human|user|instruction)\s*:|<\|)",
    re.I | re.M,
)
_SAID = re.compile(
    r"\b(?:final\s+|correct\s+)?(?:answer|result)\b[*_\s]*(?:\b(?:is|was|equals|comes\s+to|will\s+be)\b|[:=])[*_:\s]*(?=[^\w\n]*\w)",
    re.I,
)
_SENTENCE_END = re.compile(r"\n|(?<=[^\d\s])\.\s|(?<=\d)\.(?:\s|$)")
_HASHES = re.compile(r"####[ \t]*(?![ \t#])([^\n#]*)")
_NUMBERED = re.compile(r"\d+\s*[.)]\s+\D")
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?:\{(?!\s*\})|(?=[\d-]))")


def same_result(answer: str, reference: str) -> bool:
    """Whether an answer's result is a reference's.

    Where the reference's is a number, numbers are compared, exactly; any other (a root, a pair) is compared
    as text, without the spaces and wrappings of LaTeX.
    """
    wanted_text, _ = stated(reference)
    wanted = _whole_number(wanted_text)
    found, place = stated(answer)
    if wanted is None:
        return unwrapped(found) == unwrapped(wanted_text)
    if place == "box":
        return _whole_number(found) == wanted
    numbers = _numbers(found.rpartition("=")[2] if place == "words" and "=" in found else found)
    return bool(numbers) and numbers[0 if place == "words" else -1] == wanted


def stated(text: str) -> tuple[str, str]:
    r"""The part of a text that states its result, and how: in a `box`, in `words`, or at the `end`.

    The last `\boxed{}` that holds something; else what follows the first `####` that is no heading; else what follows
    the last "the answer is"; else all of it. What comes after the beginning of a further question is another answer.
    """
    text = text[-LONGEST:]
    boxes = list(_BOXED.finditer(text))
    hashes = [found for found in _HASHES.finditer(text) if _is_result(found[1])]
    said = list(_SAID.finditer(text))
    first = min((found.start() for found in (*boxes[:1], *hashes[:1], *said[:1])), default=None)
    if first is None:
        return text, "end"
    further = _NEXT_TASK.search(text, first)
    end = further.start() if further else len(text)
    if boxes[:1] and boxes[0].start() < end:
        box = [found for found in boxes if found.start() < end][-1]
        return (_group(text, box.end()) if box[0].endswith("{") else text[box.end() :].split()[0]), "box"
    if hashes[:1] and hashes[0].start() < end:
        return hashes[0][1], "words"
    last = [found for found in said if found.start() < end][-1]
    return _SENTENCE_END.split(text[last.end() : end], maxsplit=1)[0], "words"


def _is_result(line: str) -> bool:
    """Whether what follows #### is a number, and not a heading, which may be numbered."""
    plain = _plain(line)
    return _NUMBER.match(plain) is not None and _NUMBERED.match(plain) is None


def _group(text: str, start: int) -> str:
    depth = 1
    for place in range(start, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start:place]
    return text[start:]


def _plain(text: str) -> str:
    """A text in which numbers are written as people type them: without LaTeX, currency, and spaces in thousands."""
    text = re.sub(r"\\!\s*", "", text).replace("{,}", ",")
    text = re.sub(r"(?<=\d)(?:\\[,;: ]|[~\u00a0\u2007\u2009\u202f])(?=\d{3}(?!\d))", "", text)
    text = _FRACTION.sub(_over, text)
    for _ in range(2):
        text = re.sub(_WRAP + r"\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(
        r"[¼-¾⅐-⅞]", lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\u2044", "/"), text
    )
    text = re.sub(
        r"\^\{?\\circ\}?|°|\\?[%$]|[€£¥]|\\[()\[\]]|\\[,;: ]|\\(?:left|right|displaystyle)\b|[{}]", "", text
    )
    text = re.sub(r"(?<![\w*])[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}(?![\w*])", "", text)
    return text.strip()


def _over(found: re.Match[str]) -> str:
    """A fraction as a/b, set apart from the whole of a mixed number."""
    gap = " " if found.string[found.start() - 1 : found.start()].isdigit() else ""
    return f"{gap}{found[1] or found[2]}/{found[3] or found[4]}"


def _whole_number(text: str) -> Fraction | None:
    """The number that a text is, if it is one, perhaps with a unit, a name before `=`, and nothing else."""
    plain = re.sub(r"^[A-Za-z ]+:", "", _plain(text)).strip().rstrip(". ")
    for sign in ("=", r"\approx", "≈"):
        name, given, rest = plain.rpartition(sign)
        if given and not re.search(r"[,;]|\b(?:or|and)\b", name):
            plain = rest.strip()
    plain = (
        re.sub(r"(?<=\d) (?=\d{3}(?:\D|$))", "", plain) if re.fullmatch(r"[-−+]?\d{1,3}(?: \d{3})+", plain) else plain
    )
    found = _NUMBER.match(plain)
    if found is None or (found.end() < len(plain) and not _is_unit(plain[found.end() :])):
        return None
    return _value(found)


def _is_unit(text: str) -> bool:
    return _UNIT.fullmatch(text) is not None and _NO_UNIT.search(text) is None


def _numbers(text: str) -> list[Fraction | None]:
    """The numbers of a text in turn; None for one that is only a part of a result, such as the 2 of 2^10 or 2√3."""
    plain = _plain(text)
    numbers: list[Fraction | None] = []
    for found in _NUMBER.finditer(plain):
        value = _value(found)
        before = plain[max(0, found.start() - 8) : found.start()].rstrip(" (")
        if value is not None and not before.endswith(("^", "\\sqrt", "√")):
            numbers.append(None if _GOES_ON.match(plain, found.end()) else value)
    return numbers


def _value(found: re.Match[str]) -> Fraction | None:
    def number(name: str) -> Fraction:
        return Fraction(found[name].replace(",", "").replace("−", "-"))

    try:
        if found["whole"]:
            value = number("whole") + number("part") / number("parts")
        else:
            exponent = int((found["lone"] or found["e"] or found["ten"] or "0").replace("−", "-"))
            if abs(exponent) > _LARGEST_EXPONENT:
                return None
            value = (Fraction(1) if found["power"] else number("above")) * Fraction(10) ** exponent
            value /= number("below") if found["below"] else 1
    except (ValueError, ZeroDivisionError):
        return None
    return value if found["sign"] in ("", "+") else -value


def unwrapped(text: str) -> str:
    """A result as text, without the spaces and wrappings of LaTeX."""
    plain = re.sub(r"\\[dtc]frac", r"\\frac", unicodedata.normalize("NFC", text))
    return re.sub(_WRAP + r"|\\(?:left|right|displaystyle)\b|\\[!,;: ]|\\[()\[\]]|\\?[%$]|[{}\s*]|\.$", "", plain)
