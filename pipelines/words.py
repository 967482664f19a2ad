"""Words and numbers for people, and tables of text."""

from collections.abc import Sequence

# What a reason means, for a reader who has not seen the code.
MEANING = {
    "missing_image": "A sample without an image in it.",
    "bad_url": "No plain http(s) URL, or a line of a list that cannot be read.",
    "repeated_url": "The same URL came before; it was asked for once.",
    "blocked_domain": "On a list of domains that are not asked for images.",
    "forbidden_address": "Leads to an address that is not public.",
    "opted_out": "The site does not want it taken: robots.txt, X-Robots-Tag or TDM-Reservation.",
    "not_found": "The server has no such image (404, 410).",
    "http_error": "The server answered with an error, with too many redirects, or not in HTTP.",
    "connection_failed": "No such host, nobody listens there, or the connection broke.",
    "timeout": "The server took too long.",
    "unit_full": "Not asked for yet: its unit has 64 GiB of images; --refresh goes on with it.",
    "empty": "The file has no bytes.",
    "name_not_utf8": "The name of the file, or of its folder, is not UTF-8: rename it, and list it again.",
    "unreadable": "The source failed while the file was read.",
    "file_too_large": "The file is over the hard cap on bytes.",
    "not_an_image": "The file is of no known image format, whatever its name says.",
    "unsupported_format": "A known format that is not read here, or one without an honest conversion to RGB.",
    "too_many_pixels": "The header promises more pixels than the hard cap: a bomb, or a very large picture.",
    "metadata_bomb": "Metadata that costs more than any picture: compressed, or in very many pieces.",
    "truncated": "The file ends before the picture does.",
    "corrupt": "The file is an image, but cannot be decoded.",
    "crashed_decoder": "Its decoder's process died or hung twice with this image alone.",
    "too_small": "The shorter side is under the limit.",
    "too_large": "The longer side, or the number of pixels, is over the limit.",
    "aspect": "Too long and narrow.",
    "low_information": "Blank, or nearly: its grey levels hardly vary.",
    "near_uniform": "Nearly all of it is of one grey level, whatever the little rest is.",
    "text_only": "Lines of text, or other thin strokes, on a plain ground: a page, a screenshot.",
    "nsfw": "Scored as not safe for work.",
    "low_aesthetic": "Scored as not pleasing enough.",
    "watermark": "Scored as bearing a watermark.",
    "no_score": "A threshold is set on a score, and it could not be scored.",
    "no_embedding": "No vector was found or could be made for it.",
    "exact_copy": "The same bytes as another image, which stays.",
    "near_copy": "Nearly the same picture as another image of its component, which stays.",
    "leaks_holdout": "An evaluation image, or a copy of one: it would leak into training.",
    "not_retrieved": "Sound and new, but not close enough to any curated image.",
    "over_cap": "Retrieved, but others were closer and the cap was reached; or not drawn for the sample.",
    "equal_id": "The same bytes as another selected image.",
    "holdout": "Evaluation images serve to find leaks and never enter the dataset.",
    "query_only": "A curated image that only served to find others: curated images were kept out.",
    "source_changed": "Its bytes changed or vanished after they were listed or described.",
}
STAGE_VERB = {
    "describe": "could not be decoded",
    "judge": "judged not usable",
    "dedup": "copies of others",
    "decontaminate": "leak an evaluation image",
    "retrieve": "not retrieved",
    "select": "not selected",
    "shard": "lost while writing",
}


def spaced(name: str) -> str:
    """A name of the code for people: `near_copy` as `near copy`."""
    return name.replace("_", " ")


def number(value: int) -> str:
    """A count with separators."""
    return f"{value:,}"


def counted(value: int, noun: str) -> str:
    """A count and what is counted: `1 shard`, `2 shards`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def percent(part: int, whole: int) -> str:
    """A share; never 0 % or 100 % of what is not nothing or all."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) or 10 <= share <= 99 else f"{share:.1f} %"


def score(value: float | None) -> str:
    """A score to four digits; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def measured(value: float) -> str:
    """A measurement or a bound on one: a count whole, a share to four digits at most."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def size(num_bytes: int) -> str:
    """A number of bytes."""
    value, unit = float(num_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{num_bytes:,} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"


def seconds(value: float) -> str:
    """A duration."""
    if value < 100:
        return f"{value:.1f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def shortened(text: str, num_chars: int = 19) -> str:
    """A name with its middle left out where it is long: the beginning and the extension matter most."""
    if len(text) <= num_chars:
        return text
    head = (num_chars - 1) // 2
    return f"{text[:head]}…{text[-(num_chars - 1 - head) :]}"


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text: words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    is_number = [all(row[i][:1].isdigit() or not row[i] for row in rows[1:]) for i in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in rows
    ]
