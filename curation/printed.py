"""What text may show: no credentials that a URL carries, and nothing that a terminal would obey.

Names and URLs come from strangers: a key may hold the codes that clear a screen, or a URL a signature that
opens a store. Whatever is written for people, or into files that others read, goes through here.
"""

import re
import unicodedata
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


def visible(text: str, *, keep: str = "") -> str:
    """A name of a stranger with what cannot be seen, or turns the text around it, spelled out (`\\u001b`).

    That is control, format and private characters, ends of lines and halves of characters: one line stays one
    line. Escaping of HTML is the template's.

    Args:
        text: any text.
        keep: characters that stay all the same.
    """
    if text.isprintable():
        return text
    return "".join(f"\\u{ord(c):04x}" if c not in keep and _is_unseen(c) else c for c in text)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


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
