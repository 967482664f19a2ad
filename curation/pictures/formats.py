"""Which formats are read at all, and the reason that fits a file which could not be."""

import re
import zlib

ALLOWED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# What a file says that it is, by its first bytes (offset, any of these). The first that fits counts.
SIGNATURES: tuple[tuple[str, int, tuple[bytes, ...]], ...] = (
    ("JPEG", 0, (b"\xff\xd8",)),
    ("PNG", 0, (b"\x89PNG\r\n",)),
    ("WEBP", 8, (b"WEBP",)),
    ("GIF", 0, (b"GIF8",)),
    ("RAW", 8, (b"CR\x02",)),  # Canon's, in a TIFF's clothes
    ("TIFF", 0, (b"II*\0", b"MM\0*")),
    ("TIFF", 0, (b"II\0*", b"MM*\0")),  # these two stand in no book, but Pillow reads them
    ("TIFF", 0, (b"II+\0", b"MM\0+")),
    ("AVIF", 4, (b"ftypavif", b"ftypavis")),
    ("HEIF", 4, (b"ftyphe", b"ftypmif", b"ftypmsf1", b"ftypmiaf")),
    ("RAW", 4, (b"ftypcrx ",)),
    ("MP4", 4, (b"ftyp",)),
    ("JXL", 0, (b"\xff\x0a",)),
    ("JXL", 4, (b"JXL \r\n\x87\n",)),
    ("JPEG2000", 4, (b"jP  \r\n\x87\n",)),
    ("JPEG2000", 0, (b"\xff\x4f\xff\x51",)),
    ("JXR", 0, (b"II\xbc",)),
    ("QOI", 0, (b"qoif",)),
    ("PSD", 0, (b"8BPS",)),
    ("XCF", 0, (b"gimp xcf",)),
    ("PSP", 0, (b"Paint Shop Pro Image",)),
    ("EPS", 0, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("ICNS", 0, (b"icns",)),
    ("DDS", 0, (b"DDS ",)),
    ("KTX", 0, (b"\xabKTX ",)),
    ("BLP", 0, (b"BLP1", b"BLP2")),
    ("EXR", 0, (b"\x76\x2f\x31\x01",)),
    ("HDR", 0, (b"#?RADIANCE", b"#?RGBE")),
    ("FITS", 0, (b"SIMPLE  =",)),
    ("DICOM", 128, (b"DICM",)),
    ("SGI", 0, (b"\x01\xda\0\1", b"\x01\xda\0\2", b"\x01\xda\1\1", b"\x01\xda\1\2")),
    ("SUN", 0, (b"\x59\xa6\x6a\x95",)),
    ("MNG", 0, (b"\x8aMNG\r\n",)),
    ("JNG", 0, (b"\x8bJNG\r\n",)),
    ("BPG", 0, (b"BPG\xfb",)),
    ("FLIF", 0, (b"FLIF",)),
    ("DPX", 0, (b"SDPX", b"XPDS")),
    ("CINEON", 0, (b"\x80\x2a\x5f\xd7",)),
    ("FARBFELD", 0, (b"farbfeld",)),
    ("DJVU", 0, (b"AT&TFORM",)),
    ("ILBM", 8, (b"ILBM", b"PBM ")),
    ("WMF", 0, (b"\xd7\xcd\xc6\x9a",)),
    ("EMF", 40, (b" EMF",)),
    ("XPM", 0, (b"/* XPM */",)),
    ("MSP", 0, (b"DanM", b"LinS")),
    ("DCX", 0, (b"\xb1\x68\xde\x3a",)),
    ("PICT", 522, (b"\0\x11\x02\xff",)),  # behind 512 bytes of any kind, its size and its frame
    ("PCD", 2048, (b"PCD_IPI",)),
    ("PCD", 0, (b"PCD_OPA",)),
    ("PVR", 0, (b"PVR\x03", b"\x03RVP")),
    ("PVR", 44, (b"PVR!",)),
    ("VTF", 0, (b"VTF\0",)),
    ("ASTC", 0, (b"\x13\xab\xa1\x5c",)),
    ("JBIG2", 0, (b"\x97JB2\r\n\x1a\n",)),
    ("MIFF", 0, (b"id=ImageMagick",)),
    ("ANI", 8, (b"ACON",)),
    ("GBR", 20, (b"GIMP", b"GPAT")),  # brushes and patterns
    ("MRSID", 0, (b"msid",)),
    ("JXS", 0, (b"\xff\x10\xff\x50",)),
    ("NRRD", 0, (b"NRRD000",)),
    ("ORA", 30, (b"mimetypeimage/openraster",)),
    ("KRA", 30, (b"mimetypeapplication/x-krita",)),
    ("RAW", 0, (b"IIRO", b"IIRS", b"MMOR")),  # Olympus
    ("RAW", 0, (b"IIU\0",)),  # Panasonic
    ("RAW", 0, (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")),
)
# What stands at the start of formats that have more than a few fixed bytes there.
NETPBM = re.compile(rb"P(?:[1-6](?:\s|#[^\n]*\n)+\d+\s|7\n(?:#|WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE))")
ICO = re.compile(rb"\0\0\x01\0(?!\0\0)")  # a number of pictures, not none
CUR = re.compile(rb"\0\0\x02\0(?!\0\0)")
PFM = re.compile(rb"P[Ff]4?\s+\d+\s+\d+\s+[-+]?[\d.]")
XBM = re.compile(rb"\s*(?:/\*.*?\*/\s*)?#define\s+\S*width\s+\d", re.DOTALL)
PCX = re.compile(rb"\x0a[\0\2-\5][\0\1][\1\2\4\x08]", re.DOTALL)
FLIC = re.compile(rb".{4}[\x11\x12\x44]\xaf", re.DOTALL)
XWD = re.compile(
    rb"\0\0[\0-\x0f].\0\0\0\x07\0\0\0[\0-\2]", re.DOTALL
)  # header bytes, version, kind of pixmap
WPG = re.compile(rb"\xffWPC.{4}[\0\1][\0\x16]", re.DOTALL)  # by its kind of file: others are texts
PATTERNS = (
    ("PPM", NETPBM), ("ICO", ICO), ("CUR", CUR), ("PFM", PFM), ("XBM", XBM), ("PCX", PCX), ("XWD", XWD),
    ("WPG", WPG),
)  # fmt: skip
HEAD_BYTES = 4096  # what is looked at
GZIP = b"\x1f\x8b\x08"
BMP_HEADER_BYTES = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
TGA_FOOTER = b"TRUEVISION-XFILE.\0"
TGA_DEPTHS = {1: (8, 16), 2: (15, 16, 24, 32), 3: (8, 16), 9: (8, 16), 10: (15, 16, 24, 32), 11: (8, 16)}

# Of a file's bytes, the last, if they are as many: no encoder's padding. Not where zeros are usual in front
# of them too, headers aside: masks, black bars, and samples of two bytes that use one.
ZERO_TAIL_SHARE = 0.1
ZERO_TAIL_BYTES = 1024
MAX_OTHER_ZEROS = 0.1
HEADER_BYTES = 512

CUT_SHORT = ("truncated", "unexpected end", "end of file", "not enough")  # words in Pillow's errors
# Words of decoders about what they were never made for, as opposed to what is broken.
NOT_MADE_FOR = ("unknown pixel mode", "unsupported", "not supported", "not configured", "cannot handle")


def sniff(data: bytes) -> str | None:
    """The format that the first bytes claim; None where they claim none.

    What is kept packed once more, as SVGs are, has the name of what is in it, and .GZ.
    """
    if not data.startswith(GZIP):
        return _sniff_unpacked(data)
    inside = packed_in_gzip(data)
    return None if inside is None or inside in ALLOWED else f"{inside}.GZ"


def packed_in_gzip(data: bytes) -> str | None:
    """The format of a picture that a transport packed (`Content-Encoding: gzip`), and nobody unpacked."""
    if not data.startswith(GZIP):
        return None
    try:
        head = zlib.decompressobj(31).decompress(data[:HEAD_BYTES], HEAD_BYTES)
    except zlib.error:
        return None
    return _sniff_unpacked(head)


def _sniff_unpacked(data: bytes) -> str | None:
    for name, offset, starts in SIGNATURES:
        if data.startswith(starts, offset):
            return "AVIF" if name == "HEIF" and _is_avif_too(data) else name
    head = data[:1024]
    if head.startswith(b"BM") and (len(data) < 18 or _u32(data, 14) in BMP_HEADER_BYTES):
        return "BMP"
    for name, pattern in PATTERNS:
        if pattern.match(head):
            return name
    if FLIC.match(head) and _u32(data, 0) <= len(data) + 1024 and data[6] + 256 * data[7] > 0:
        return "FLI"
    if _is_tga(data):
        return "TGA"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text:
        return "SVG"
    return None


def plain_name(pillow_format: str | None) -> str | None:
    """Pillow's name of a format; MPO (JPEGs one behind the other) is JPEG, as only the first is read."""
    return "JPEG" if pillow_format == "MPO" else pillow_format


def reason_unidentified(data: bytes, words: str = "") -> str:
    """Why no decoder on the list would open this file; `words` are the decoder's own, where there are any."""
    claimed = sniff(data)
    if claimed is None:
        return "not_an_image"
    if claimed not in ALLOWED or _is_beyond_us(words):
        return "unsupported_format"
    return "truncated" if _ends_early(data, claimed) else "corrupt"


def reason_of(error: Exception, data: bytes, *, heard: str = "") -> str:
    """The reason behind an exception that a decoder raised on an opened file.

    Args:
        heard: what the libraries below said on the way.
    """
    words = str(error).lower()
    if "max_text" in words:  # "… data too large for PngImagePlugin.MAX_TEXT_CHUNK", "… >MAX_TEXT_MEMORY"
        return "metadata_bomb"
    if _is_beyond_us(f"{words} {heard.lower()}"):
        return "unsupported_format"
    claimed = sniff(data)
    if claimed is None:
        return "not_an_image"
    if isinstance(error, EOFError) or any(cut in words for cut in CUT_SHORT):
        return "truncated"
    return "truncated" if _ends_early(data, claimed) else "corrupt"


def has_zero_tail(data: bytes) -> bool:
    """Whether a good part of the file, at its end, is zeros: a download or a copy that was not filled in."""
    if data.startswith(b"RIFF"):
        data = data[: 8 + _u32(data, 4)]
    if not data.endswith(bytes(ZERO_TAIL_BYTES)):
        return False
    others = data.rstrip(b"\0")
    is_long = len(data) - len(others) > ZERO_TAIL_SHARE * len(data)
    return is_long and others.count(0, HEADER_BYTES) <= MAX_OTHER_ZEROS * len(others)


def _is_beyond_us(words: str) -> bool:
    return any(word in words.lower() for word in NOT_MADE_FOR)


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _is_avif_too(data: bytes) -> bool:
    """Whether a HEIF names AVIF among the brands that it is compatible with (ISO/IEC 14496-12, §4.3)."""
    num_bytes = int.from_bytes(data[:4], "big")
    return b"avif" in data[16 : min(num_bytes, 256)]


def _is_tga(data: bytes) -> bool:
    """Whether it is Truevision's, by its last bytes or a header without a contradiction: it has no signature.

    Source: Truevision TGA File Format Specification 2.0, §3.2 and appendix C.
    """
    if len(data) < 18 or data[2] not in TGA_DEPTHS or data[16] not in TGA_DEPTHS[data[2]]:
        return False
    if data.endswith(TGA_FOOTER):
        return True
    has_map = data[2] in (1, 9)
    if data[1] != has_map or (not has_map and any(data[3:8])) or data[17] & 0xC0:
        return False
    width, height = data[12] + 256 * data[13], data[14] + 256 * data[15]
    map_bytes = (data[5] + 256 * data[6]) * ((data[7] + 7) // 8) if has_map else 0
    num_bytes = width * height * ((data[16] + 7) // 8)
    behind = len(data) - 18 - data[0] - map_bytes
    is_packed = data[2] >= 9  # at best 128 pixels in one count and one pixel
    return num_bytes > 0 and (behind >= num_bytes if not is_packed else behind * 128 >= num_bytes)


def _ends_early(data: bytes, claimed: str) -> bool:
    match claimed:
        case "JPEG":
            return data.rfind(b"\xff\xd9") < 0
        case "WEBP":
            return len(data) < 8 + _u32(data, 4)
        case "TIFF":  # the directory often stands behind the pixels
            return len(data) < int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big")
        case "AVIF":
            return _boxes_end(data) > len(data)
        case _:
            return False


def _boxes_end(data: bytes) -> int:
    """Offset at which the last top-level box says that it ends (ISO/IEC 14496-12, §4.2)."""
    position = 0
    while 0 <= position <= len(data) - 8:
        num_bytes = int.from_bytes(data[position : position + 4], "big")
        if num_bytes < 8:  # 0: to the end of the file; 1: 64-bit sizes, which no picture needs
            return len(data)
        position += num_bytes
    return position
