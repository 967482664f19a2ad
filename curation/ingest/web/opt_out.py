"""How a site says that an image is not to be indexed or trained on, in headers and in pages."""

import re
from collections.abc import Iterable, Mapping

# `none` is `noindex, nofollow`. Source: the X-Robots-Tag of the large search engines; `noai` and
# `noimageai` as DeviantArt introduced them and img2dataset reads them.
OPT_OUTS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "none"))
# Directives with a value of their own, which concerns what a search shows: what precedes the colon is no
# crawler's name, and what follows it no directive.
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
# Commas are the rule; semicolons, spaces and quotes are what people write.
_SEPARATORS = re.compile(r"""[\s,;"'\[\]]+""")
_AROUND_COLON = re.compile(r"\s*:\s*")
_CRAWLER = re.compile(r"[a-z*_][a-z0-9_.*/-]*")  # times and dates have colons too


def opts_out(headers: Mapping[str, str], *, robots_tags: Iterable[str], product: str) -> bool:
    """Whether an answer's headers forbid what we would do with the image.

    Args:
        robots_tags: the values of all its `X-Robots-Tag` headers.
        product: the crawler's product token in lower case; tags for other crawlers are not ours.
    """
    # Source: TDM Reservation Protocol (W3C community group, 2024), §5.
    if reserves(headers.get("tdm-reservation", "")):
        return True
    return any(forbids(value, product) for value in robots_tags)


def forbids(value: str, product: str) -> bool:
    """Whether an `X-Robots-Tag`, or the content of a `<meta name=robots>`, forbids what we would do.

    Args:
        value: directives; `agent: directive` holds for that crawler, and so do those after it in the value.
    """
    is_ours = True
    for word in _SEPARATORS.split(_AROUND_COLON.sub(":", value.lower())):
        name, colon, directive = word.partition(":")
        if not colon:
            directive = name
        elif name in _WITH_VALUE or not _CRAWLER.fullmatch(name):
            continue
        else:
            is_ours = name.partition("/")[0] in (product, "*")
        if is_ours and directive in OPT_OUTS:
            return True
    return False


def reserves(value: str) -> bool:
    """Whether a `TDM-Reservation` says that the rights are reserved."""
    return value.strip(" \t\r\n\"'") == "1"
