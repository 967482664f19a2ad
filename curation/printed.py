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
# In these the first part is the name of a bucket or a container, which has no port.
_PORTLESS = ("s3", "s3a", "s3n", "gs", "gcs", "oss", "cos", *_CONTAINER_FIRST)
# A user within the path of a URL of another one: https://archive/2024/http://user:password@host/x.
_INNER_USER = re.compile(r"(?<=/)((?:https?|ftp)://)[^/?#@]*@", re.IGNORECASE)
_INNER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20})://")
# Akamai's tokens, which stand in queries and in paths: exp=1~acl=/*~hmac=00ff.
_HMAC = re.compile(r"(?<=~hmac=)[^~/?&;#]+", re.IGNORECASE)
# In a sentence, whose own marks follow it.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>`]*[^\s\"'<>`.,;:!?)\]}]")
_ONE_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://\S*\s*")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#?/]+)=([^&;#]*)")
# Of names of parameters, without case and what joins their words: where one of these stands in it, or is it.
_SECRET_PART = re.compile(
    r"signature|token|secret|passw|pwd|oauthsig|credential|apikey|accesskey|accessid|privatekey|authorization"
    r"|sessionid|jwt|^(?:xamz|xgoog|xms)"
)
_SECRET_NAMES = frozenset(
    ("sig", "sign", "key", "auth", "sas", "hmac", "code", "policy", "keypairid", "session", "verify")
)
_AKAMAI_NAMES = frozenset(("hdnts", "hdnea", "hdntl"))
_MAX_PORT_DIGITS = 5
_NAMES_WITHIN = re.compile(r"(?:^|[?&;#~])([^=&;#~?/]+)=(?=[^&;#~])")
# What is encoded more often is hidden unread.
_MAX_ENCODINGS = 5


def redact_url(url: str) -> str:
    """A URL without the credentials it may carry: in its authority, or in the query of a signed one.

    What is hidden stays hidden when it is asked again, and a path without a scheme stays as it is.
    """
    scheme, sep, rest = url.partition("://")
    if not sep:
        return url
    rest = _INNER_USER.sub(rf"\1{HIDDEN}@", _hide_user(scheme.lower(), rest))
    return f"{scheme}://{_HMAC.sub(HIDDEN, _PARAMETER.sub(_hide_parameter, rest))}"


def redact(text: str) -> str:
    """Text of any kind without the credentials of the URLs in it."""
    return _URL.sub(lambda found: redact_url(found[0]), text)


def redact_value(text: str) -> str:
    """A value of a stranger's table: without its credentials where it is one URL, and any other as it is."""
    return redact_url(text) if "://" in text and _ONE_URL.fullmatch(text) else text


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
    is_port = port.isdecimal() and len(port) <= _MAX_PORT_DIGITS
    return not (is_port and scheme.rpartition(":")[2] not in _PORTLESS)


def _hide_parameter(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    is_hidden = bool(value) and (_is_secret(name) or _holds_secret(value))
    return f"{name}={HIDDEN}" if is_hidden else found[0]


def _is_secret(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    return plain in _SECRET_NAMES | _AKAMAI_NAMES or _SECRET_PART.search(plain) is not None


def _holds_secret(value: str) -> bool:
    """Whether a value has in it a user of a URL, or a secret parameter, however often encoded."""
    if "%" not in value and "=" not in value and "://" not in value:
        return False
    for _ in range(_MAX_ENCODINGS):
        inner = unquote(value)
        if any(_is_secret(name) for name in _NAMES_WITHIN.findall(inner)) or _has_user(inner):
            return True
        if inner == value:
            return False
        value = inner
    return True


def _has_user(text: str) -> bool:
    """Whether a URL in a text has a user in its authority."""
    _, *parts = _INNER_SCHEME.split(text)
    return any(
        _hide_user(scheme.lower(), rest) != rest for scheme, rest in zip(parts[::2], parts[1::2], strict=True)
    )
