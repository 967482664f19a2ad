"""A network in ONNX with the inputs and outputs of YuNet, to which a red square is a face.

Written byte by byte: the few messages of the format that it needs are shorter than a dependency.

Source: onnx.proto3 (field numbers); OpenCV's FaceDetectorYN (names of the outputs, how boxes are told).
"""

from collections.abc import Iterable, Sequence

import numpy as np

STRIDES = (8, 16, 32)
FLOAT, INTS = 1, 7
SIDE_PX = 320
# exp(1.1) strides: the side of every box.
BOX_SHIFT = 1.1


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """A protobuf message: whole numbers as varints, the rest with their lengths."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tensor(name: str, values: np.ndarray) -> bytes:
    """TensorProto."""
    dims = [(1, side) for side in values.shape]
    return message(*dims, (2, FLOAT), (8, name), (9, values.astype("<f4").tobytes()))


def node(kind: str, inputs: Sequence[str], output: str, attributes: Iterable[bytes] = ()) -> bytes:
    """NodeProto."""
    return message(
        *((1, name) for name in inputs), (2, output), (3, output), (4, kind), *((5, a) for a in attributes)
    )


def value(name: str, shape: Sequence[int]) -> bytes:
    """ValueInfoProto of floats."""
    dims = message(*((1, message((1, side))) for side in shape))
    return message((1, name), (2, message((1, message((1, FLOAT), (2, dims))))))


def tiny_yunet() -> bytes:
    """The file: for every stride a convolution that looks for red, and constants for all else."""
    nodes, weights, outputs = [], [], []
    for stride in STRIDES:
        # Of blue, green, red (0–255), averaged over a cell: red 100 levels above green is even odds.
        red = np.zeros((1, 3, stride, stride), np.float32)
        red[0, 1], red[0, 2] = -0.1 / stride**2, 0.1 / stride**2
        for name, kernel, bias, is_score in (
            ("cls", red, [-10.0], True),
            ("obj", np.zeros_like(red), [20.0], True),
            ("bbox", np.zeros((4, 3, stride, stride)), [BOX_SHIFT] * 4, False),
            ("kps", np.zeros((10, 3, stride, stride)), [0.0] * 10, False),
        ):
            out = f"{name}_{stride}"
            weights += [tensor(f"{out}_w", kernel), tensor(f"{out}_b", np.array(bias))]
            ints = [
                message((1, attribute), *((8, stride) for _ in range(2)), (20, INTS))
                for attribute in ("kernel_shape", "strides")
            ]
            made = f"{out}_raw" if is_score else out
            nodes.append(node("Conv", ["input", f"{out}_w", f"{out}_b"], made, ints))
            if is_score:
                nodes.append(node("Sigmoid", [made], out))
            outputs.append(value(out, (1, len(bias), SIDE_PX // stride, SIDE_PX // stride)))
    graph = message(
        *((1, one) for one in nodes),
        (2, "tiny"),
        *((5, one) for one in weights),
        (11, value("input", (1, 3, SIDE_PX, SIDE_PX))),
        *((12, one) for one in outputs),
    )
    return message((1, 8), (2, "tests"), (7, graph), (8, message((1, ""), (2, 11))))
