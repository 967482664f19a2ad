"""What must become of every bad picture of the development data, and where our verdict is a choice."""

import csv
from pathlib import Path

NAMED_REASONS = ("empty", "truncated", "corrupt", "not_an_image", "unsupported_format")

# Where the index leaves the choice ("either"), ours, and why.
CHOICES: dict[str, str | None] = {
    "trunc_jpeg_no_eoi.jpg": None,  # every pixel is there: kept, with a warning
    "zero_hole.jpg": None,  # libjpeg only remarks on stray bytes, as on many sound files: kept, warned
    "zero_page.jpg": "corrupt",  # libjpeg ran out of data within a block and made up the rest
    "ztxt_bomb_64MB.png": "metadata_bomb",
    "ztxt_many_100x0.9MB.png": "metadata_bomb",
    "itxt_bomb_64MB.png": "metadata_bomb",
    "iccp_bomb_64MB.png": "metadata_bomb",
    "ztxt_after_idat_bomb.png": "metadata_bomb",
    "prog_many_scans_3000.jpg": "corrupt",  # ten scans are usual; three thousand are an attack
    "float32_nan.tif": "unsupported_format",
    "many_chunks_20000.png": "too_small",
    "tiff_ifd_loop.tif": "too_small",
}
# Where our reason for a refusal is another than the index expects, and why.
OTHER_REASONS = {
    "one_byte.jpg": "not_an_image",  # one byte claims nothing
    "only_magic.jpg": "truncated",  # three bytes of a JPEG are the start of one
    "crlf_mangled.png": "not_an_image",  # the mangling took its signature
    "utf16_mangled.jpg": "not_an_image",  # and here
    "forged_max_u32.png": "too_many_pixels",  # what its header says is all that is read
    "bmp_neg_width.bmp": "too_many_pixels",  # Pillow reads the width as unsigned
}


def read_index(badset: Path) -> list[dict[str, str]]:
    """The index's rows of the pictures in `badset`/made."""
    with (badset / "INDEX.tsv").open(newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for row in rows if row["file"].startswith("made/")]


def wrong_verdict(row: dict[str, str], verdict: str | None) -> str | None:
    """What is wrong with a verdict, or None.

    Args:
        row: of the index.
        verdict: the reason of describe or judge; None where both let the picture pass.
    """
    name, must = row["file"].removeprefix("made/"), row["must"]
    if must == "either":
        return None if name in CHOICES and verdict == CHOICES[name] else f"either, and got {verdict}"
    if (verdict is None) != (must == "accept"):
        return f"must {must}, and got {verdict}"
    expected = row["expected"].removeprefix("reject:").split()[0].rstrip(";")
    if must == "reject" and expected in NAMED_REASONS and verdict != OTHER_REASONS.get(name, expected):
        return f"expected {expected}, and got {verdict}"
    return None
