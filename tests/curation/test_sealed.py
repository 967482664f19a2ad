"""JSON that knows its own hash."""

import json

import pytest

from curation.errors import IntegrityError
from curation.sealed import seal, sealed, unseal

DATA = {"b": [1, 2.5, None], "a": "ü\u2028"}


@pytest.mark.parametrize("text", [seal(DATA), json.dumps(sealed(DATA), indent=1), seal(DATA).encode()])
def test_what_was_sealed_comes_back_in_its_order(text: str | bytes) -> None:
    assert list(unseal(text, where="x").items()) == list(DATA.items())


def test_without_a_seal_it_is_of_an_earlier_version() -> None:
    assert unseal(json.dumps(DATA), where="x") == DATA


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (seal(DATA).replace("2.5", "2.6"), "another content than was sealed"),
        ("[1]", "a list where an object was expected"),
        ("{", "damaged: here"),
        (b"\xff", "damaged: here"),
        ("[" * 100_000, "damaged: here"),
    ],
)
def test_damage_names_the_file(text: str | bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=said) as error:
        unseal(text, where="here")
    assert error.value.path == "here"
