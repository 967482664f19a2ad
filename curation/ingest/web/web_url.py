"""Reads a URL of somebody's list: what it asks for, or why it is never asked for."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from urllib.parse import quote

from yarl import URL

from curation.ingest.web.addresses import Network, is_allowed, is_private_name
from curation.ingest.web.blocked_domains import is_blocked
from curation.ingest.web.download_config import MAX_URL_CHARS

# Control characters (a line break in a URL would write headers of its own), what Unicode uses to turn the
# direction of text, lone surrogates, and the backslash, which some parsers take for a slash.
_NEVER_IN_A_URL = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\ud800-\\udfff\\\\]"
)
_ESCAPED_BREAK = re.compile("%0[0ad]", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_SCHEME = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_HOST = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
# The last label of a numeric host: what C libraries and browsers read as an address, in some base or other.
_NUMERIC = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|[0-9]+)\.?")


class RefusedUrlError(Exception):
    """A URL that is not asked for; `reason` is one of those of `describe`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_url(text: str | URL, *, allowed: Sequence[Network], blocked: frozenset[str]) -> URL:
    """The URL that `text` is, ready to be asked for.

    Args:
        text: as it stands in a list or in a redirect, spaces around it apart; a `URL` where it was joined
            with another one.

    Raises:
        RefusedUrlError: `bad_url` for what is no plain http(s) URL, `blocked_domain`, or `forbidden_address`
            where the host is itself an address that is not allowed, or a name of the own network.
    """
    url = _parse(str(text))
    host = url.raw_host or ""
    if ":" in host or _NUMERIC.fullmatch(host):
        _check_literal(host, allowed)
    elif not _HOST.fullmatch(host):
        raise RefusedUrlError("bad_url", "the host is no name")
    elif is_blocked(host, blocked):
        raise RefusedUrlError("blocked_domain", host)
    elif not allowed and is_private_name(host):
        raise RefusedUrlError("forbidden_address", "a name of the own network")
    return url


def _parse(text: str) -> URL:
    text = text.strip(" ")
    if len(text) > MAX_URL_CHARS:
        raise RefusedUrlError("bad_url", f"longer than {MAX_URL_CHARS} characters")
    if _NEVER_IN_A_URL.search(text) or _ESCAPED_BREAK.search(text):
        raise RefusedUrlError("bad_url", "a character that has no place in a URL")
    if not _SCHEME.match(text):
        raise RefusedUrlError("bad_url", "neither http:// nor https:// and a host")
    try:
        url = URL(text)
        port = url.port
    except (ValueError, IndexError) as error:  # yarl 1.25 reads in front of a host that begins with "]"
        raise RefusedUrlError("bad_url", str(error)[:200]) from error
    if not url.raw_host or not port:
        raise RefusedUrlError("bad_url", "no host, or no port")
    if url.raw_user is not None or url.raw_password is not None:
        raise RefusedUrlError("bad_url", "a user name or password")
    return _as_written(url, text)


def _as_written(url: URL, text: str) -> URL:
    """The same URL with its path and query as they were written: a signed one must not be put another way.

    Only what cannot be sent is escaped. Dot segments are resolved, lest they go around a rule of robots.txt.
    """
    rest = _ORIGIN.sub("", text, count=1).partition("#")[0]
    if "/." in rest.partition("?")[0].replace("%2e", ".").replace("%2E", "."):
        return url.with_fragment(None)
    rest = quote(rest, safe="%/:=&?~+!$,;'@()*[]|")
    return URL(f"{url.origin()}{'' if rest.startswith('/') else '/'}{rest}", encoded=True)


def _check_literal(host: str, allowed: Sequence[Network]) -> None:
    try:
        address = ip_address(host)
    except ValueError as error:
        raise RefusedUrlError("bad_url", "an address in a form that readers disagree about") from error
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise RefusedUrlError("forbidden_address", "an address of one network interface")
    if not is_allowed(address, allowed):
        raise RefusedUrlError("forbidden_address", str(address))
