"""What a column's type says of its values: whether they are bytes, and whether these can be but pictures."""

import pyarrow as pa
import pyarrow.types as pt


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, whatever they are packed in."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pt.is_dictionary(kind) or pt.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_bytes(kind: pa.DataType) -> bool:
    """Whether the values are bytes, of a fixed size or not."""
    return is_free_bytes(kind) or pt.is_fixed_size_binary(plain_type(kind))


def is_free_bytes(kind: pa.DataType) -> bool:
    """Whether the values are bytes of any length: images, or text whose writer did not say so."""
    kind = plain_type(kind)
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether the values are text, and not packed in anything."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def has_free_bytes(kind: pa.DataType) -> bool:
    """Whether there are such bytes in it, at any depth."""
    plain = plain_type(kind)
    return is_free_bytes(plain) or any(has_free_bytes(plain.field(i).type) for i in range(plain.num_fields))


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether the values are images of Hugging Face `datasets`, or lists of them."""
    kind = plain_type(kind)
    if pt.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return fields.keys() == {"bytes", "path"} and is_bytes(fields["bytes"])
    return kind.num_fields == 1 and not pt.is_map(kind) and holds_pictures(kind.field(0).type)
