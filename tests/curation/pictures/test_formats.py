"""formats: what a file is, though no decoder of ours reads it; and JPEGs that only other decoders read."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from curation.pictures import formats
from curation.pictures.decode import DecodeConfig, Decoded, decode


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=224, config=DecodeConfig())


def _encode(file_format: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _with_frame(marker: int, bits: int) -> bytes:
    """A JPEG whose frame header says another process, or other bits a sample, than its scan has."""
    data = bytearray(_encode("JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    return bytes(data)


@pytest.mark.parametrize(("marker", "bits"), [(0xC1, 12), (0xC0, 12), (0xC2, 12), (0xC9, 12)])
def test_jpegs_of_12_bits(marker: int, bits: int) -> None:
    decoded = _decode(_with_frame(marker, bits))
    assert (decoded.reason, decoded.format) == ("unsupported_format", "JPEG")
    assert decoded.warnings == ("JPEG: 12 bits a sample",)
    assert (decoded.width, decoded.height) == (64, 48)


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7])
def test_lossless_and_hierarchical_jpegs(marker: int) -> None:
    """Huffman and arithmetic ones; the last is JPEG-LS."""
    for bits in (8, 12, 16):
        decoded = _decode(_with_frame(marker, bits))
        assert (decoded.reason, decoded.format) == ("unsupported_format", "JPEG")
        assert f"marker {marker:02x}" in decoded.warnings[0]


def test_jpegs_of_two_components_or_without_a_height() -> None:
    data = bytearray(_encode("JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 9] = 2
    assert _decode(bytes(data)).reason == "unsupported_format"
    data = bytearray(_encode("JPEG"))
    data[at + 5 : at + 7] = bytes(2)
    decoded = _decode(bytes(data))
    assert (decoded.reason, decoded.warnings) == (
        "unsupported_format",
        ("JPEG: its height behind the scan (DNL)",),
    )


@pytest.mark.parametrize(
    ("file_format", "mode", "options", "name"),
    [
        ("PCX", "RGB", {}, "PCX"),
        ("PCX", "L", {}, "PCX"),
        ("PCX", "1", {}, "PCX"),
        ("TGA", "RGB", {}, "TGA"),
        ("TGA", "RGBA", {"compression": "tga_rle"}, "TGA"),
        ("TGA", "P", {}, "TGA"),
        ("TGA", "L", {}, "TGA"),
        ("SGI", "RGB", {}, "SGI"),
        ("SGI", "L", {}, "SGI"),
        ("PPM", "RGB", {}, "PPM"),
        ("PPM", "L", {}, "PPM"),
        ("PPM", "1", {}, "PPM"),
        ("ICO", "RGB", {}, "ICO"),
        ("ICNS", "RGBA", {}, "ICNS"),
        ("DDS", "RGB", {}, "DDS"),
        ("XBM", "1", {}, "XBM"),
        ("MSP", "1", {}, "MSP"),
        ("JPEG2000", "RGB", {}, "JPEG2000"),
        ("JPEG2000", "RGB", {"no_jp2": True}, "JPEG2000"),
        ("EPS", "RGB", {}, "EPS"),
        ("BLP", "P", {}, "BLP"),
        ("QOI", "RGB", {}, "QOI"),
    ],
)
def test_formats_that_pillow_writes(
    file_format: str, mode: str, options: dict[str, object], name: str
) -> None:
    data = _encode(file_format, mode, **options)
    assert formats.sniff(data) == name
    decoded = _decode(data)
    assert (decoded.reason, decoded.format) == ("unsupported_format", name)


def _tga(kind: int, *, footer: bool = False, has_map: bool = False) -> bytes:
    """A Targa of 8 x 6 px by hand: the old form, without a footer, unless asked for."""
    depth = {1: 8, 2: 24, 3: 8, 9: 8, 10: 24, 11: 8}[kind]
    header = bytes([0, has_map, kind]) + struct.pack("<HHB", 0, 256 * has_map, 24 * has_map)
    header += struct.pack("<HHHHBB", 0, 0, 8, 6, depth, 0x20) + bytes(768 * has_map)
    pixels = bytes(48 * depth // 8) if kind < 9 else b"\x87\1\2\3" * 6
    return header + pixels + (bytes(8) + formats.TGA_FOOTER if footer else b"")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("PPM", b"P1\n2 2\n0 1 1 0\n"),
        ("PPM", b"P2 2 2 255\n0 1 2 3\n"),
        ("PPM", b"P2\t2\t2\t255\n0 1 2 3\n"),
        ("PPM", b"P3\r\n# made by hand\r\n2 2 255 "),
        ("PPM", b"P4\n#\n8 1\n\xff"),
        ("PPM", b"P5 2 2 255\n\0\1\2\3"),
        ("PPM", b"P6#c\n 2 2 255\n"),
        ("PPM", b"P7\nWIDTH 2\nHEIGHT 2\n"),
        ("PFM", b"PF\n2 2\n-1.0\n"),
        ("PFM", b"Pf 2 2 1\n"),
        ("FITS", b"SIMPLE  =                    T"),
        ("CUR", b"\0\0\2\0\1\0\x20\x20\0\0"),
        ("FLI", struct.pack("<IHHHHHHH", 128, 0xAF11, 3, 320, 200, 8, 3, 5) + bytes(108)),
        ("FLI", struct.pack("<IHHHHHHH", 128, 0xAF12, 3, 320, 200, 8, 3, 5) + bytes(108)),
        ("TGA", _tga(2)),
        ("TGA", _tga(3)),
        ("TGA", _tga(1, has_map=True)),
        ("TGA", _tga(10)),
        ("TGA", _tga(2, footer=True)),
        ("PSD", b"8BPS\0\1"),
        ("XPM", b"/* XPM */\nstatic char *x[] = {"),
        ("XBM", b"/* an icon */\n#define icon_width 16\n#define icon_height 16\n"),
        ("WMF", b"\xd7\xcd\xc6\x9a\0\0"),
        ("EMF", b"\1\0\0\0" + bytes(36) + b" EMF"),
        ("HDR", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"),
        ("EXR", b"\x76\x2f\x31\x01\2\0\0\0"),
        ("DJVU", b"AT&TFORM\0\0\0\0DJVU"),
        ("RAW", b"II*\0\x10\0\0\0CR\2\0"),
        ("RAW", b"\0\0\0\x18ftypcrx \0\0\0\1"),
        ("RAW", b"FUJIFILMCCD-RAW 0201"),
        ("RAW", b"IIRO\x08\0\0\0"),
        ("MNG", b"\x8aMNG\r\n\x1a\n"),
        ("JNG", b"\x8bJNG\r\n\x1a\n"),
        ("FARBFELD", b"farbfeld\0\0\0\2"),
        ("DPX", b"SDPX\0\0\x20\0"),
        ("DPX", b"XPDS\0\x20\0\0"),
        ("DICOM", bytes(128) + b"DICM"),
        ("ILBM", b"FORM\0\0\1\0ILBMBMHD"),
        ("SUN", b"\x59\xa6\x6a\x95\0\0"),
        ("JXR", b"II\xbc\1\x20\0\0\0"),
        ("HEIF", b"\0\0\0\x18ftypheix\0\0\0\0mif1heix"),
        ("SVG", b"\xef\xbb\xbf<!-- drawn -->\n<svg xmlns='x'/>"),
    ],
)
def test_formats_by_their_first_bytes(name: str, data: bytes) -> None:
    assert formats.sniff(data) == name
    decoded = _decode(data)
    assert (decoded.reason, decoded.format) == ("unsupported_format", name)


@pytest.mark.parametrize(
    "data",
    [
        b"P5 is a processor",
        b"P1\n\nis where the first paragraph stands",
        b"BMW is a make of cars, and no bitmap",
        b"\n\5\1\x09 no bits of a PCX",
        b"#define WIDTH(x) 16",
        bytes(64),
        bytes([0, 0, 2]) + bytes(40),
        b"\0\0\2" + b"text that has a type and no sizes and more of it" * 3,
        b"<!-- a page --><html><body>svg</body></html>",
        b"%PDF-1.7\n",  # a document
        b"\x1f\x8b\x08\0",
    ],
)
def test_no_images(data: bytes) -> None:
    assert formats.sniff(data) is None
    assert _decode(data).reason == "not_an_image"


def test_random_bytes_are_no_images() -> None:
    rng = np.random.default_rng(0)
    found = [formats.sniff(rng.integers(0, 256, 4096, np.uint8).tobytes()) for _ in range(5000)]
    assert sum(name is not None for name in found) <= 2


def test_an_avif_of_a_general_brand_is_one() -> None:
    data = bytearray(_encode("AVIF"))
    assert data[8:12] == b"avif"
    data[8:12] = b"mif1"
    assert b"avif" in data[16:40]
    assert formats.sniff(bytes(data)) == "AVIF"
    assert _decode(bytes(data)).reason is None
    assert _decode(bytes(data[: len(data) // 2])).reason == "truncated"


def test_bmps_that_hold_another_format() -> None:
    """Compression 4 is a JPEG within: of a known format, in a form that is not read."""
    data = bytearray(_encode("BMP"))
    data[30:34] = struct.pack("<I", 4)
    decoded = _decode(bytes(data))
    assert decoded.reason == "unsupported_format"
    assert decoded.warnings == ("Pillow: Unsupported BMP compression (4)",)


PICTURES_OF_OTHERS = {
    "DCX": b"\xb1\x68\xde\x3a" + bytes(30),
    "XWD": struct.pack(">IIIIII", 104, 7, 2, 24, 640, 480) + bytes(100),
    "PICT": bytes(522) + b"\0\x11\x02\xff\x0c\0" + bytes(40),
    "PCD": bytes(2048) + b"PCD_IPI" + bytes(40),
    "WPG": b"\xffWPC\x10\0\0\0\x01\x16\x01\0" + bytes(30),
    "PVR": b"PVR\x03" + bytes(64),
    "VTF": b"VTF\0\x07\0\0\0" + bytes(60),
    "ASTC": b"\x13\xab\xa1\x5c\x04\x04\x01" + bytes(64),
    "JBIG2": b"\x97JB2\r\n\x1a\n" + bytes(30),
    "MIFF": b"id=ImageMagick  version=1.0\nclass=DirectClass\n",
    "ANI": b"RIFF\x10\0\0\0ACONanih" + bytes(40),
    "GBR": struct.pack(">IIIII", 28, 2, 9, 9, 1) + b"GIMP" + bytes(100),
    "NRRD": b"NRRD0004\ntype: uchar\n",
    "ORA": b"PK\x03\x04" + bytes(26) + b"mimetypeimage/openraster",
    "SVG.GZ": gzip.compress(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "EMF.GZ": gzip.compress(bytes(40) + b" EMF" + bytes(100)),
}


@pytest.mark.parametrize("name", PICTURES_OF_OTHERS)
def test_pictures_that_only_others_read_have_their_names(name: str) -> None:
    decoded = _decode(PICTURES_OF_OTHERS[name])
    assert (decoded.reason, decoded.format) == ("unsupported_format", name)


@pytest.mark.parametrize(
    "data",
    [
        b"\xffWPC\x10\0\0\0\x01\x0a\x01\0" + bytes(30),  # a text of WordPerfect's
        b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/epub+zip",
        b"RIFF\x10\0\0\0WAVEfmt " + bytes(40),
        bytes(3000),
        gzip.compress(b"a text, " * 900),
        gzip.compress(gzip.compress(bytes(5000))),
        b"\x1f\x8b\x08" + bytes(50),
        b"\x1f\x8b\x08",
    ],
)
def test_what_only_resembles_them_is_no_picture(data: bytes) -> None:
    assert _decode(data).reason == "not_an_image"


def test_a_picture_that_a_transport_packed_is_named() -> None:
    for name in ("JPEG", "PNG"):
        decoded = _decode(gzip.compress(_encode(name)))
        assert decoded.reason == "not_an_image"
        assert decoded.warnings == (f"lvd: {name} packed by gzip",)


@pytest.mark.parametrize(
    ("name", "options"), [("TIFF", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("AVIF", {})]
)
def test_a_tail_of_zeros_is_said(name: str, options: dict[str, object]) -> None:
    data = _encode(name, **options)
    assert _decode(data).warnings == ()
    for share in (0.3, 0.4, 0.5):
        half = int(len(data) * share)
        decoded = _decode(data[:half] + bytes(len(data) - half))
        assert decoded.reason in ("corrupt", "truncated") or decoded.warnings == ("zero_tail",)
        assert name == "AVIF" or decoded.reason is None


def test_zeros_behind_the_pixels_are_no_tail() -> None:
    for name in ("JPEG", "PNG", "GIF", "WEBP"):
        assert _decode(_encode(name) + bytes(1 << 16)).warnings == ()
    assert _decode(_encode("TIFF")[:-100] + bytes(100)).warnings == ()


@pytest.mark.parametrize("name", ["TIFF", "BMP"])
def test_black_parts_of_masks_and_films_are_no_tail(name: str) -> None:
    film = np.random.default_rng(0).integers(1, 256, (120, 160, 3), np.uint8)
    film[:20] = film[-20:] = 0
    mask = np.zeros((120, 160), np.uint8)
    mask[30:60, 40:90] = 255
    for pixels in (film, mask):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name)
        assert _decode(buffer.getvalue()).warnings == ()
