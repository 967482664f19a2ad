"""Headers by which a site says that an image is not to be indexed or trained on."""

from collections.abc import Iterable, Mapping

# `none` is `noindex, nofollow`. Source: the X-Robots-Tag of the large search engines; `noai` and
# `noimageai` as DeviantArt introduced them and img2dataset reads them.
OPT_OUTS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "none"))
# Directives that have a colon of their own, so that what precedes it is no crawler's name.
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))


def opts_out(headers: Mapping[str, str], *, robots_tags: Iterable[str], product: str) -> bool:
    """Whether an answer's headers forbid what we would do with the image.

    Args:
        headers: of the answer.
        robots_tags: the values of all its `X-Robots-Tag` headers.
        product: the crawler's product token in lower case; tags for other crawlers are not ours.
    """
    # TDM Reservation Protocol (W3C community group, 2024), §5: 1 means that the rights are reserved.
    if headers.get("tdm-reservation", "").strip() == "1":
        return True
    return any(_forbids(value, product) for value in robots_tags)


def _forbids(value: str, product: str) -> bool:
    is_ours = True
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        directive = part.strip()
        if colon and name.strip() not in _WITH_VALUE:
            # `agent: directive` holds for that crawler, and so do the directives after it on the line.
            is_ours, directive = name.strip() in (product, "*"), rest.strip()
        if is_ours and directive in OPT_OUTS:
            return True
    return False
