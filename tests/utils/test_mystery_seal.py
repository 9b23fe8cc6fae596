"""The seal: it hides a record from a reader's eye, and notices damage."""

import pytest

from utils.models.mystery.families import FAMILIES
from utils.models.mystery.seal import SIZE, open_seal, seal

KEY = b"key" * 10
RECORD = {"family": FAMILIES[0].__name__, "parameters": {"left": [1, 2], "gap": 3}, "sentence": "Größer als 3?"}


def test_a_sealed_record_opens_with_its_key():
    assert open_seal(seal(RECORD, KEY), KEY) == RECORD


def test_every_seal_has_the_same_size():
    assert len(seal({}, KEY)) == len(seal(RECORD | {"more": list(range(900))}, KEY)) == SIZE


def test_nothing_of_the_record_can_be_seen():
    sealed = seal(RECORD | {"zeros": [0] * 500}, KEY)
    for word in ("family", FAMILIES[0].__name__, "left", "sentence"):
        assert word.encode() not in sealed
    assert max(sealed.count(byte) for byte in range(256)) < 80  # 32 on average: no pattern of the padding shows through


def test_another_key_does_not_open_it():
    with pytest.raises(ValueError, match="does not belong to these weights"):
        open_seal(seal(RECORD, KEY), KEY + b"!")


@pytest.mark.parametrize("place", [0, 40, SIZE - 1])
def test_a_changed_byte_is_noticed(place):
    sealed = bytearray(seal(RECORD, KEY))
    sealed[place] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        open_seal(bytes(sealed), KEY)


def test_a_record_that_is_too_long_is_refused():
    from random import Random

    with pytest.raises(ValueError, match="after compression"):
        seal({"noise": Random(0).randbytes(SIZE).hex()}, KEY)
