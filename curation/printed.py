"""What text may show: no credentials that a URL carries, and nothing that a terminal would obey.

Names and URLs come from strangers: a key may hold the codes that clear a screen, or a URL a signature that
opens a store. Whatever is written for people, or into files that others read, goes through here.
"""

import re
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
# In these the part before the @ is the container, and no credential: abfs://container@account.dfs.…/x.
_CONTAINER_FIRST = ("abfs", "abfss", "az", "wasb", "wasbs")
_WEB = ("http", "https", "ws", "wss", "ftp")
# In a sentence, whose own marks follow it.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>`]*[^\s\"'<>`.,;:!?)\]}]")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#?/]+)=([^&;#]*)")
# Of names of parameters, without case and what joins their words: where one of these stands in it, or is it.
_SECRET_PART = re.compile(
    r"signature|token|secret|passw|pwd|credential|apikey|accesskey|accessid|privatekey|authorization"
    r"|sessionid|jwt|^(?:xamz|xgoog|xms)"
)
_SECRET_NAMES = frozenset(
    ("sig", "sign", "key", "auth", "sas", "hmac", "code", "policy", "keypairid", "session")
)
# What moves the cursor, clears, colours or answers; what ends a line; what turns the direction of writing;
# and halves of characters, which cannot be written at all.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def redact_url(url: str) -> str:
    """A URL without the credentials it may carry: in its authority, or in the query of a signed one.

    What is hidden stays hidden when it is asked again, and a path without a scheme stays as it is.
    """
    scheme, sep, rest = url.partition("://")
    if not sep:
        return url
    return f"{scheme}://{_PARAMETER.sub(_hide_parameter, _hide_user(scheme.lower(), rest))}"


def redact(text: str) -> str:
    """Text of any kind without the credentials of the URLs in it."""
    return _URL.sub(lambda found: redact_url(found[0]), text)


def redacted(data: Any) -> Any:
    """Plain data without the credentials that its URLs may carry."""
    match data:
        case dict():
            return {key: redacted(value) for key, value in data.items()}
        case list() | tuple():
            return [redacted(value) for value in data]
        case str():
            return redact_url(data)
    return data


def printable(text: str, *, keep: str = "") -> str:
    """Text with every control character spelled out (`\\x1b`), but those to keep: one line stays one line."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _spelled(found[0]), text)


def _spelled(character: str) -> str:
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def _hide_user(scheme: str, rest: str) -> str:
    first = re.split("[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(first) :]
    user, at, host = first.rpartition("@")
    if "@" in tail and _is_cut_password(scheme, host):
        # A password with a slash: host and path are behind the last @.
        return f"{HIDDEN}@{tail.rpartition('@')[2]}"
    is_container = scheme.rpartition(":")[2] in _CONTAINER_FIRST and ":" not in user
    return f"{HIDDEN}@{host}{tail}" if at and not is_container else rest


def _is_cut_password(scheme: str, host: str) -> bool:
    """Whether what looks like a host is a user with the beginning of a password: no host has such a port."""
    _, colon, port = host.rpartition(":")
    if not colon or host.startswith("["):
        return False
    return not (scheme.rpartition(":")[2] in _WEB and port.isdecimal())


def _hide_parameter(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    if not value or not (plain in _SECRET_NAMES or _SECRET_PART.search(plain)):
        inner = unquote(value)  # a URL within a URL
        if redact_url(inner) == inner:
            return found[0]
    return f"{name}={HIDDEN}" if value else found[0]
