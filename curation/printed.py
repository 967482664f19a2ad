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
# Schemes whose URLs are still read, or guessed, with other slashes than two: https:/user:password@host.
_NETWORKED = (
    r"(?:[a-z0-9.-]{1,40}\+)?(?:https?|ftps?|sftp|ssh|hf|(?:web)?hdfs|(?:web)?davs?|s3[an]?|gcs|gs|oss|cos|abfss?|az"
    r"|wasbs?)"
)
# A chain of stores, or a library, and a URL with so many slashes; or one that leaves its scheme to the page.
_ODD_HEAD = re.compile(
    rf"\s*(?:(?:[a-z0-9+._-]+::?)*(?P<scheme>{_NETWORKED}):(?!//(?![/\\]))[/\\]*|[/\\]{{2,}})", re.IGNORECASE
)
_HEAD = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.:-]*://")
# A user within the path of a URL of another one: https://archive/2024/http://user:password@host/x.
_INNER_USER = re.compile(r"(?<=/)((?:https?|ftp):[/\\]+)[^/?#@]*@", re.IGNORECASE)
_INNER_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20})://")
# Akamai's tokens, which stand in queries and in paths: exp=1~acl=/*~hmac=00ff.
_HMAC = re.compile(r"(?<=~hmac=)[^~/?&;#]+", re.IGNORECASE)
# In a sentence, whose own marks follow it.
_URL = re.compile(
    rf"(?:[a-z][a-z0-9+.-]{{0,40}}://|(?<![a-z0-9]){_NETWORKED}:[/\\]+|(?<![^\s\"'<(])//(?=[^\s/]*@))"
    r"[^\s\"'<>`]*[^\s\"'<>`.,;:!?)\]}]",
    re.IGNORECASE,
)
_ONE_URL = re.compile(
    rf"\s*(?:[a-z][a-z0-9+._-]*::?)*(?:[a-z][a-z0-9+.-]*://|{_NETWORKED}:[/\\]+|//)\S*\s*", re.IGNORECASE
)
_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#?/]+)=([^&;#]*)")
# What of a secret follows a mark that would end a parameter, were it not that none follows.
_REST_OF_SECRET = re.compile(r"(?:[;#](?![^=&;#?/]+=[^=&;#])[^&;#]*)*")
# Of names of parameters, without case and what joins their words: where one of these stands in it, or is it.
_SECRET_PART = re.compile(
    r"signature|token|secret|passw|pwd|sig$|credential|apikey|accesskey|accessid|authkey|privatekey|resourcekey"
    r"|subscriptionkey|authorization|bearer|sess(?:ion)?id|connectsid|jwt|^(?:xamz|xgoog|xms)"
)
_SECRET_NAMES = frozenset(
    ("sign", "key", "auth", "sas", "hmac", "code", "policy", "keypairid", "session", "verify", "rlkey")
) | {"skey", "pass", "pw", "userpass", "cred", "creds", "tok"}
_AKAMAI_NAMES = frozenset(("hdnts", "hdnea", "hdntl"))
# These are secrets too, unless what they say is a small number, or yes or no: a height, a section.
_OFTEN_SECRET = frozenset(("hm", "oh", "sid", "signed"))
_HONEST = re.compile(r"\d{1,6}(?:px)?|true|false|yes|no|on|off", re.IGNORECASE)
# And these beside the time at which a URL ends: of a link that a server checks, not of a file's content.
_SECRET_WITH_END = frozenset(("md5", "hash", "st"))
_END = re.compile(r"[?&;](?:expires?|expiry|exp|e)=\d", re.IGNORECASE)
_MAX_PORT_DIGITS = 5
_NAMES_WITHIN = re.compile(r"(?:^|[?&;#~])([^=&;#~?/]+)=(?=([^&;#~]{1,64}))")
# What is encoded more often is hidden unread.
_MAX_ENCODINGS = 5


def redact_url(url: str) -> str:
    """A URL without the credentials it may carry: in its authority, or in the query of a signed one.

    What is hidden stays hidden when it is asked again, and a path without a scheme stays as it is.
    """
    if found := _ODD_HEAD.match(url):
        return found[0] + _hide(found["scheme"] or "", url[found.end() :])
    scheme, sep, rest = url.partition("://")
    return f"{scheme}://{_hide(scheme, rest)}" if sep else url


def redact_link(text: str) -> str:
    """What stands where a URL is due, without credentials, though its scheme is missing or none."""
    if _HEAD.match(text) or _ODD_HEAD.match(text):
        return redact_url(text)
    return _hide("http", text)


def redact(text: str) -> str:
    """Text of any kind without the credentials of the URLs in it."""
    return _URL.sub(lambda found: redact_url(found[0]), text)


def redact_value(text: str) -> str:
    """A value of a stranger's table: without its credentials where it is one URL, and any other as it is."""
    return redact_url(text) if ("/" in text or "\\" in text) and _ONE_URL.fullmatch(text) else text


def redacted(data: Any) -> Any:
    """Plain data without the credentials that its URLs may carry."""
    match data:
        case dict():
            return {redacted(key): redacted(value) for key, value in data.items()}
        case list() | tuple():
            return [redacted(value) for value in data]
        case str():
            return redact_url(data)
    return data


def visible(text: str, *, keep: str = "") -> str:
    """A name of a stranger with what cannot be seen, or turns the text around it, spelled out (`\\u001b`).

    That is control, format and private characters, ends of lines and halves of characters: one line stays one
    line. Escaping of HTML is the template's.
    """
    if text.isprintable():
        return text
    return "".join(f"\\u{ord(c):04x}" if c not in keep and _is_unseen(c) else c for c in text)


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _hide(scheme: str, rest: str) -> str:
    """What follows the scheme and its slashes."""
    shown = _INNER_USER.sub(rf"\1{HIDDEN}@", _hide_user(scheme.lower(), rest))
    return _HMAC.sub(HIDDEN, _hide_parameters(shown))


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


def _hide_parameters(rest: str) -> str:
    has_end = _END.search(rest) is not None
    shown, at = [], 0
    while found := _PARAMETER.search(rest, at):
        name, value = found[1], found[2]
        if value and (_is_secret(name, value, has_end=has_end) or _holds_secret(value)):
            shown += [rest[at : found.start(2)], HIDDEN]
            tail = _REST_OF_SECRET.match(rest, found.end())
            at = tail.end() if tail else found.end()
        else:
            shown.append(rest[at : found.end()])
            at = found.end()
    return "".join(shown) + rest[at:]


def _is_secret(name: str, value: str, *, has_end: bool) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    if plain in _OFTEN_SECRET:
        return _HONEST.fullmatch(value) is None
    if plain in _SECRET_WITH_END:
        return has_end
    return plain in _SECRET_NAMES | _AKAMAI_NAMES or _SECRET_PART.search(plain) is not None


def _holds_secret(value: str) -> bool:
    """Whether a value has in it a user of a URL, or a secret parameter, however often encoded."""
    if "%" not in value and "=" not in value and "://" not in value:
        return False
    for _ in range(_MAX_ENCODINGS):
        inner = unquote(value)
        has_end = _END.search(inner) is not None
        names = _NAMES_WITHIN.findall(inner)
        if any(_is_secret(name, said, has_end=has_end) for name, said in names) or _has_user(inner):
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
