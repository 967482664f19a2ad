"""What a robots.txt allows: its rules for one crawler, and the question whether a path may be asked for.

Source: RFC 9309, "Robots Exclusion Protocol".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

# RFC 9309 §2.5: at least 500 KiB are read; what lies behind is not.
MAX_ROBOTS_BYTES = 500 << 10
_PRODUCT = re.compile(r"[A-Za-z_-]+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# RFC 3986 §2.3: an escaped unreserved character means the character.
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a group: a pattern of paths, and whether they may be asked for."""

    pieces: tuple[str, ...]  # of the normalised pattern, which `*` separates
    length: int  # characters of the pattern
    is_allowed: bool
    to_end: bool  # the pattern ended in `$`: it must match the whole path


Rules = tuple[Rule, ...]
ALLOW_ALL: Rules = ()


def product_token(user_agent: str) -> str:
    """The name by which a crawler is addressed: the leading letters, `_` and `-` of its user agent."""
    match = _PRODUCT.match(user_agent)
    return match.group().lower() if match else ""


def parse_robots(data: bytes, product: str) -> Rules:
    """The rules of a robots.txt for one crawler.

    All groups that name the crawler count together; where none does, those of `*` (§2.2.1). A line that
    cannot be read is passed over.

    Args:
        data: the file; what lies beyond `MAX_ROBOTS_BYTES` is ignored.

    Returns:
        Its rules in the order of the file.
    """
    own: list[Rule] = []
    others: list[Rule] = []
    named = False
    agents: set[str] = set()
    in_rules = True
    for field, value in _lines(data):
        if field == "user-agent":
            if in_rules:  # a new group
                agents, in_rules = set(), False
            agents.add("*" if value.startswith("*") else product_token(value))
            named = named or product in agents
        elif field in ("allow", "disallow"):
            in_rules = True
            if not value:  # an empty pattern matches nothing (§2.2.2)
                continue
            rule = _rule(value, is_allowed=field == "allow")
            if product in agents:
                own.append(rule)
            elif "*" in agents:
                others.append(rule)
    return tuple(own if named else others)


def _rule(pattern: str, *, is_allowed: bool) -> Rule:
    normalised = _normalised(pattern)
    pieces = tuple(normalised.removesuffix("$").split("*"))
    return Rule(pieces, len(normalised), is_allowed, to_end=pattern.endswith("$"))


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    text = data[:MAX_ROBOTS_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")
    for line in re.split(r"[\r\n]+", text):
        field, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield field.strip().lower(), value.strip()


def may_ask(rules: Rules, path: str) -> bool:
    """Whether a path may be asked for: the longest rule that matches decides, of equals `allow` (§2.2.2)."""
    if path == "/robots.txt":
        return True
    path = _normalised(path)
    longest, is_allowed = -1, True
    for rule in rules:
        if rule.length < longest or (rule.length == longest and is_allowed):
            continue
        if _matches(rule, path):
            longest, is_allowed = rule.length, rule.is_allowed
    return is_allowed


def _matches(rule: Rule, path: str) -> bool:
    """Match from the start of the path, piece after piece between the `*`: linear, however many they are.

    A regular expression would take exponential time on a pattern that somebody made for that.
    """
    first, *rest = rule.pieces
    if not path.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not rule.to_end or at == len(path)
    *middle, last = rest
    for piece in middle:
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    if rule.to_end:
        return path.endswith(last) and len(path) - len(last) >= at
    return path.find(last, at) >= 0


def _normalised(path: str) -> str:
    """The same path in the one form in which paths and patterns are compared (§2.2.2, RFC 3986 §6.2.2)."""
    if path.isascii() and "%" not in path:
        return path
    return _ESCAPE.sub(_one_form, quote(path, safe="!#$%&'()*+,/:;=?@[]~"))


def _one_form(match: re.Match[str]) -> str:
    character = chr(int(match.group()[1:], 16))
    return character if character in _UNRESERVED else match.group().upper()
