"""Codecs around codecs: compressed and sealed payloads, and what becomes of those that were damaged."""

import base64
import os
import sys
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs.codecs import Wrapping, compressed, new_key, register, sealed
from forge_jobs.codecs.plain import decode, encode, hides
from forge_jobs.codecs.seal import key_id_of
from forge_jobs.errors import InvalidInput, InvalidPayload, UnfitPayload
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.rules.items import Items

OLD, NEW = os.urandom(32), os.urandom(32)
SECRET = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def registered(own_codecs: None) -> None:
    register("packed", compressed())
    register("packed-zstd", compressed(method="zstd"))
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    register("sealed-packed", sealed("packed", keys={"new": NEW}))


ALL = ("packed", "packed-zstd", "sealed", "sealed-packed")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    value=st.dictionaries(st.text(), st.lists(st.integers() | st.text() | st.none())),
    codec=st.sampled_from(ALL),
)
def test_what_is_wrapped_comes_back(value: dict[str, Any], codec: str) -> None:
    register("sealed", sealed(keys={"new": NEW}))
    assert decode(plain_encoded(value, codec), codec) == decode(plain_encoded(value, "json"), "json")


def plain_encoded(value: Any, codec: str) -> bytes:
    return encode(value, codec, limit=sys.maxsize)


@pytest.mark.parametrize("codec", ALL)
def test_arguments_are_of_their_types_as_without_a_wrapping(codec: str) -> None:
    def pay(at: datetime, amounts: dict[int, bytes]) -> None: ...

    arguments = Arguments(pay)
    said = {"at": datetime(2026, 11, 28, tzinfo=UTC), "amounts": {3: b"three"}}

    assert arguments.decode(arguments.check(said, codec), codec) == said


def test_a_payload_is_compressed_where_that_makes_it_shorter() -> None:
    long, short, noise = {"text": "a" * 5000}, {"text": "a"}, {"text": os.urandom(5000).hex()[:600]}

    assert len(encode(long, "packed")) < 100
    assert len(encode(long, "packed-zstd")) < 100
    assert len(encode(short, "packed")) == len(encode(short)) + 3
    register("eager", compressed(least=0))
    assert len(encode({"x": os.urandom(9).hex()}, "eager")) <= len(encode({"x": os.urandom(9).hex()})) + 3
    assert decode(encode(noise, "packed"), "packed") == noise


def test_either_way_of_compressing_unpacks_what_the_other_has_packed() -> None:
    value = {"text": "a" * 5000}

    assert decode(encode(value, "packed"), "packed-zstd") == value
    assert decode(encode(value, "packed-zstd"), "packed") == value


def test_a_payload_that_is_too_large_when_it_is_unpacked_is_not_unpacked() -> None:
    register("small", compressed(most=10_000))
    bomb = b"\xc1Cz" + zlib.compress(b"[" + b"0" * 50_000_000)

    with pytest.raises(InvalidPayload) as refused:
        decode(bomb, "small")

    assert str(refused.value) == (
        "The payload cannot be read as small: it has more than 10,000 bytes when it is unpacked, which is not allowed."
    )
    with pytest.raises(InvalidPayload, match="has 20,003 bytes before it is compressed, allowed are 10,000"):
        encode("a" * 20_001, "small")


def test_nobody_reads_what_is_sealed_and_no_two_seals_are_alike() -> None:
    one, other = encode({"card": SECRET}, "sealed"), encode({"card": SECRET}, "sealed")

    assert one != other
    assert SECRET.encode() not in one
    assert b"card" not in one


def test_what_an_old_key_has_sealed_is_opened_and_the_first_key_seals() -> None:
    register("before", sealed(keys={"old": OLD}))
    before = encode({"card": SECRET}, "before")

    assert decode(before, "sealed") == {"card": SECRET}
    assert (key_id_of(before), key_id_of(encode({}, "sealed"))) == ("old", "new")


def test_keys_may_come_as_one_text() -> None:
    text = ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in (("new", NEW), ("old", OLD)))
    register("by-text", sealed(keys=text))

    assert decode(encode({"a": 1}, "by-text"), "sealed") == {"a": 1}
    assert len(base64.b64decode(new_key())) == 32


def test_a_payload_whose_key_is_not_there_may_fit_another_program() -> None:
    register("elsewhere", sealed(keys={"next": NEW}))

    with pytest.raises(UnfitPayload) as unfit:
        decode(encode({"card": SECRET}, "elsewhere"), "sealed")

    assert str(unfit.value) == (
        "The payload cannot be read as sealed: it is sealed with the key 'next', which this program lacks; keys: new, old."
    )


@pytest.mark.parametrize("place", [0, 3, 4, 7, 8, 20, -1])
def test_no_changed_byte_goes_unnoticed(place: int) -> None:
    payload = bytearray(encode({"card": SECRET}, "sealed"))
    payload[place] ^= 1

    with pytest.raises(InvalidPayload, match=r"^The payload cannot be read as sealed: it is ") as refused:
        decode(bytes(payload), "sealed")

    assert SECRET not in str(refused.value)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(payload=st.binary(max_size=100), codec=st.sampled_from(ALL))
def test_any_bytes_are_read_or_refused_in_one_sentence(payload: bytes, codec: str) -> None:
    for begins in (b"", b"\xc1S1", b"\xc1S1\x03new", b"\xc1C", b"\xc1Cz", b"\xc1Cs", b"\xc1C-"):
        try:
            decode(begins + payload, codec)
        except InvalidPayload as error:
            assert str(error).startswith("The payload cannot be read as ")
            assert "\n" not in str(error)


def test_another_key_under_the_same_id_is_refused() -> None:
    register("wrong", sealed(keys={"new": os.urandom(32)}))

    with pytest.raises(InvalidPayload) as refused:
        decode(encode({"card": SECRET}, "sealed"), "wrong")

    assert not isinstance(refused.value, UnfitPayload)
    assert str(refused.value) == (
        "The payload cannot be read as wrong: it is damaged, or was sealed with another key 'new'."
    )


def test_the_limit_of_a_payload_holds_for_what_is_stored() -> None:
    value = {"text": "a" * 5000}

    encode(value, "packed", limit=100)
    with pytest.raises(InvalidPayload, match="has 5,046 bytes as sealed, allowed are 100"):
        encode(value, "sealed", limit=100)


KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "keys of sealed is empty, allowed are keys by their ids, at least one."),
        ("", "keys of sealed is empty, allowed are keys by their ids, at least one."),
        (["a"], "keys of sealed is of type list, allowed are keys by their ids, at least one."),
        ({"a": KEY[:20]}, "The key 'a' has 15 bytes, allowed are 32 bytes, or these in base64."),
        (
            {"a": "?" + KEY},
            "The key 'a' is a text that is no base64, allowed are 32 bytes, or these in base64.",
        ),
        ({"a": 5}, "The key 'a' is of type int, allowed are 32 bytes, or these in base64."),
        (
            {KEY: KEY},
            "The id of a key is 44 characters, allowed are 1 to 32 characters of a-z, A-Z, 0-9, _, . and -.",
        ),
        (KEY, "Entry 0 of the keys has no colon, allowed is ID:BASE64, with spaces between entries."),
        (f"a:{KEY} a:{KEY}", "The keys have 'a' twice, allowed are different ids."),
    ],
)
def test_keys_that_are_none_are_refused_and_not_shown(keys: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        sealed(keys=keys)

    assert str(refused.value) == says
    assert KEY not in says


def test_a_codec_may_not_be_around_itself_or_around_none() -> None:
    with pytest.raises(
        InvalidInput, match=r"The codec 'packed' would be around itself, allowed is one around another."
    ):
        register("packed", compressed("sealed-packed"))
    with pytest.raises(InvalidInput, match="There is no codec 'unknown'"):
        register("of-unknown", compressed("unknown"))
    with pytest.raises(InvalidInput, match="method of compressed is 'lzma', allowed is one of zlib, zstd"):
        compressed(method="lzma")
    with pytest.raises(
        InvalidInput, match="least of compressed is -1, allowed is a number of bytes, 0 or more"
    ):
        compressed(least=-1)


def test_a_codec_hides_what_any_of_its_wrappings_hides() -> None:
    register("outside", compressed("sealed"))

    assert [name for name in ("json", "packed", "sealed", "sealed-packed", "outside") if hides(name)] == [
        "sealed",
        "sealed-packed",
        "outside",
    ]


def test_a_program_may_have_a_wrapping_of_its_own() -> None:
    class Turned(Wrapping):
        inner = "json"

        def wrap(self, payload: bytes) -> bytes:
            return payload[::-1]

        def unwrap(self, payload: bytes) -> bytes:
            return payload[::-1]

    register("turned", Turned())

    assert encode({"a": 1}, "turned") == b'}1:"a"{'
    assert decode(b'}1:"a"{', "turned") == {"a": 1}


def test_items_of_a_sealed_list_are_read_as_those_of_an_open_one() -> None:
    from forge_jobs.rules.items import read

    items: Items = read(encode([1, {"a": 2}], "sealed-packed"), "sealed-packed")

    assert [bytes(item) for item in items.stored] == [b"1", b'{"a":2}']
