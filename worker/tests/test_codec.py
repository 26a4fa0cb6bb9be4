import functools
import json
import math
import pickle
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.codecs.plain import codecs, decode, encode, register
from forge_jobs.errors import InvalidInput, InvalidPayload
from forge_jobs.handlers.arguments import Arguments

BUILT_IN = ["json", "msgpack"]


class Colour(StrEnum):
    RED = "red"


class Size(Enum):
    SMALL = 1


@dataclass
class Address:
    street: str
    since: date | None = None
    tags: list[str] = field(default_factory=list)


class Point(msgspec.Struct):
    x: int
    y: int = 0


class User(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(alias="years")
    joined: datetime | None = None


class Measured(pydantic.BaseModel):
    value: float


@dataclass
class Counted:
    counts: dict[Any, int]


class Unknown:
    pass


class Pickle:
    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value)

    def decode(self, payload: bytes) -> Any:
        return pickle.loads(payload)


class Talking:
    """A codec that writes what is not bytes."""

    def encode(self, value: Any) -> bytes:
        return "text"  # type: ignore[return-value]

    def decode(self, payload: bytes) -> Any:
        raise InvalidPayload("Never.")


def refusal(function: Any, payload: Any, codec: str = "json", *, skip: int = 0) -> str:
    with pytest.raises(InvalidPayload) as caught:
        Arguments(function, skip=skip).check(payload, codec)
    return str(caught.value)


# Values


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("codec", BUILT_IN)
@given(value=plain_values)
def test_plain_objects_come_back_as_they_were(codec: str, value: Any) -> None:
    assert decode(encode(value, codec), codec) == value


@given(garbage=st.binary(max_size=40))
def test_garbage_is_an_invalid_payload_and_nothing_else(garbage: bytes) -> None:
    def handler(a: int, b: str = "") -> None: ...

    for codec in BUILT_IN:
        for read in (decode, Arguments(handler).decode):
            try:
                read(garbage, codec)
            except InvalidPayload as error:
                assert str(error).endswith(".")


@pytest.mark.parametrize("codec", BUILT_IN)
def test_objects_of_known_types_can_be_written(codec: str) -> None:
    value = {
        "moment": datetime(2026, 1, 2, tzinfo=UTC),
        "id": UUID(int=7),
        "price": Decimal("1.10"),
        "colour": Colour.RED,
        "size": Size.SMALL,
        "address": Address("Main St", date(2020, 1, 1)),
        "point": Point(1),
        "user": User(name="Ann", years=30),
        "pair": (1, 2),
        "long": timedelta(seconds=90),
    }

    read = decode(encode(value, codec), codec)

    assert read["price"] == "1.10"
    assert read["size"] == 1
    assert read["address"] == {"street": "Main St", "since": "2020-01-01", "tags": []}
    assert read["user"] == {"name": "Ann", "years": 30, "joined": None}
    assert read["pair"] == [1, 2]


class Worth(Enum):
    UNKNOWN = math.nan


def nested(levels: int, inmost: Any) -> Any:
    for _ in range(levels):
        inmost = [inmost]
    return inmost


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, r"float at \$ \(nan is no number in JSON\)"),
        ({"a": [1, {"b": math.inf}]}, r"float at \$\.a\[1\]\.b \(inf is no number in JSON\)"),
        ({"a": None, "b": (0.5, -math.inf)}, r"float at \$\.b\[1\] \(-inf is"),
        ({"a": {math.nan}}, r"float at \$\.a\[0\]"),
        ({"point": Point(math.nan)}, r"float at \$\.point\.x"),  # type: ignore[arg-type]
        ({"address": Address(math.nan)}, r"float at \$\.address\.street"),  # type: ignore[arg-type]
        ({"user": Measured(value=math.nan)}, r"float at \$\.user\.value"),
        ({"worth": Worth.UNKNOWN}, r"float at \$\.worth"),
        ({math.nan: 1}, r"dict at \$ \(its key nan is no number in JSON\)"),
        ({"null": "null", "a": {7: math.nan}}, r"float at \$\.a\[7\]"),
        (nested(900, math.nan), r"float at \$\[0\]\[0\]"),
    ],
)
def test_a_float_that_json_has_no_word_for_is_refused_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(InvalidPayload, match=f"^The payload cannot be written as json: {says}"):
        encode(value)


def test_message_pack_has_a_word_for_every_float() -> None:
    nan, inf = decode(encode([math.nan, math.inf], "msgpack"), "msgpack")

    assert math.isnan(nan) and inf == math.inf


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1: "a", "1": "b"}, r"dict at \$ \(its keys 1 and '1' are one key\)\."),
        ({"a": [{"1.5": "a", 1.5: "b"}]}, r"dict at \$\.a\[0\] \(its keys '1\.5' and 1\.5 are one key\)"),
        ({"a": {UUID(int=5): 1, str(UUID(int=5)): 2}}, r"dict at \$\.a \(its keys UUID"),
        ({Size.SMALL: 1, 1: 2}, "are one key"),
        ({"a": Counted({1: 1, "1": 2})}, r"dict at \$\.a\.counts"),
        ({"a": pydantic.RootModel[dict[Any, int]]({1: 1, "1": 2})}, r"dict at \$\.a\.root"),
    ],
)
def test_keys_that_are_one_in_json_are_refused_with_their_place(value: Any, says: str) -> None:
    with pytest.raises(InvalidPayload, match=says):
        encode(value)


@pytest.mark.parametrize("codec", BUILT_IN)
def test_keys_that_stay_apart_may_be_of_any_type_that_the_codec_has(codec: str) -> None:
    assert len(decode(encode({1: "a", 2: "b", "three": "c", 4.5: "d", UUID(int=5): None}, codec), codec)) == 5


def test_message_pack_keeps_numbers_and_text_apart() -> None:
    assert decode(encode({1: "a", "1": "b"}, "msgpack"), "msgpack") == {1: "a", "1": "b"}
    with pytest.raises(InvalidPayload, match="are one key"):
        encode({UUID(int=5): 1, str(UUID(int=5)): 2}, "msgpack")


@pytest.mark.parametrize("number", [2**53 + 1, 2**63, 2**64, 2**200, -(2**63) - 1, 10**400])
def test_a_whole_number_is_read_as_it_was_or_refused(number: int) -> None:
    def handler(number: int) -> None: ...

    assert decode(encode(number)) == number
    assert Arguments(handler).decode(encode({"number": number})) == {"number": number}
    if not -(2**63) <= number < 2**64:
        with pytest.raises(InvalidPayload, match=r"int at \$\.number \("):
            encode({"number": number}, "msgpack")


def test_a_whole_number_that_python_does_not_write_out_is_refused() -> None:
    with pytest.raises(InvalidPayload, match=r"int at \$\.a \("):
        encode({"a": 10**5000})


@pytest.mark.parametrize("codec", BUILT_IN)
@pytest.mark.parametrize(
    ("value", "place"),
    [
        (Unknown(), "at $."),
        ({"a": [1, {"b": Unknown()}]}, "at $.a[1].b."),
        ({"point": Point(Unknown())}, "at $.point.x."),  # type: ignore[arg-type]
        ({"address": Address(Unknown())}, "at $.address.street."),  # type: ignore[arg-type]
        ({7: Unknown()}, "at $[7]."),
        ((1, Unknown()), "at $[1]."),
    ],
)
def test_a_type_that_cannot_be_written_is_named_with_its_place(codec: str, value: Any, place: str) -> None:
    with pytest.raises(InvalidPayload, match="Unknown at ") as caught:
        encode(value, codec)
    assert str(caught.value).endswith(place)


def test_a_value_that_cannot_be_written_says_why() -> None:
    with pytest.raises(InvalidPayload, match=r"str at \$\.name \(.*surrogates not allowed\)\.$"):
        encode({"name": "\ud800"})
    with pytest.raises(InvalidPayload, match=r"int at \$\[0\] \("):
        encode([2**70], "msgpack")


def test_a_payload_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidPayload, match="nested too deeply, or holds itself"):
        encode({"a": endless})


@pytest.mark.parametrize("codec", BUILT_IN)
def test_a_payload_nested_too_deeply_cannot_be_read(codec: str) -> None:
    deep = b"[" * 100_000 if codec == "json" else b"\x91" * 100_000
    with pytest.raises(InvalidPayload, match="cannot be read"):
        decode(deep, codec)
    with pytest.raises(InvalidPayload, match="refused"):
        Arguments(lambda a: a).decode((b'{"a":' if codec == "json" else b"\x81\xa1a") + deep, codec)


def test_a_payload_over_the_limit_is_refused_with_both_sizes() -> None:
    assert len(encode("x" * 1022, limit=1024)) == 1024
    with pytest.raises(InvalidPayload, match="has 1,025 bytes as json, allowed are 1,024"):
        encode("x" * 1023, limit=1024)


def test_the_limit_is_a_mebibyte_unless_said_otherwise() -> None:
    encode("x" * (1024 * 1024 - 2))
    with pytest.raises(InvalidPayload, match="1,048,576"):
        encode("x" * (1024 * 1024 - 1))


# Codecs


def test_a_program_may_register_its_own_codec() -> None:
    register("pickle", Pickle())

    assert decode(encode({1, 2}, "pickle"), "pickle") == {1, 2}
    assert codecs() == ("json", "msgpack", "pickle")


@pytest.mark.parametrize("codec", ["yaml", "", None, ["json"]])
def test_an_unknown_codec_is_named_with_those_there_are(codec: Any) -> None:
    for use in (lambda: encode(1, codec), lambda: decode(b"1", codec)):
        with pytest.raises(InvalidPayload, match=r"There is no codec .*; codecs: json, msgpack\."):
            use()


@pytest.mark.parametrize("name", ["", "UPPER", "with space", "x" * 33, 5, None])
def test_an_ill_formed_name_of_a_codec_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match="name of a codec"):
        register(name, Pickle())


def test_a_built_in_codec_cannot_be_replaced() -> None:
    with pytest.raises(InvalidInput, match="'json' is built in"):
        register("json", Pickle())


def test_whatever_a_codec_of_a_program_raises_is_an_invalid_payload() -> None:
    register("pickle", Pickle())
    register("talking", Talking())

    with pytest.raises(InvalidPayload, match="cannot be read as pickle"):
        decode(b"garbage", "pickle")
    with pytest.raises(InvalidPayload, match=r"cannot be written as pickle: .*function"):
        encode({"a": lambda: 0}, "pickle")
    with pytest.raises(InvalidPayload, match="made str, allowed is bytes"):
        encode(1, "talking")
    with pytest.raises(InvalidPayload, match=r"^Never\.$"):
        decode(b"", "talking")


# Arguments


def send(context: Any, to: str, subject: str) -> None: ...


@pytest.mark.parametrize("codec", BUILT_IN)
def test_arguments_come_back_by_name(codec: str) -> None:
    arguments = Arguments(send, skip=1)

    assert arguments.names == ("to", "subject")
    payload = arguments.check({"to": "a", "subject": "b"}, codec)
    assert arguments.decode(payload, codec) == {"to": "a", "subject": "b"}


def test_arguments_have_the_types_that_the_handler_names() -> None:
    def handler(
        at: datetime,
        colour: Colour,
        size: Size,
        address: Address,
        points: list[Point],
        price: Decimal,
        user: User,
        users: dict[str, User],
        mode: Literal["fast", "slow"],
        maybe: int | None,
        small: Annotated[int, msgspec.Meta(le=9)],
        anything,
    ) -> None: ...

    given = {
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "colour": Colour.RED,
        "size": Size.SMALL,
        "address": Address("Main St", date(2020, 1, 1), ["x"]),
        "points": [Point(1, 2)],
        "price": Decimal("1.10"),
        "user": User(name="Ann", years=30),
        "users": {"b": User(name="Bob", years=31)},
        "mode": "fast",
        "maybe": None,
        "small": 9,
        "anything": {"k": [1]},
    }
    arguments = Arguments(handler)
    register("pickle", Pickle())

    for codec in BUILT_IN:
        assert arguments.decode(arguments.check(given, codec), codec) == given
    assert arguments.decode(encode(given | {"size": 1}, "pickle"), "pickle") == given


@pytest.mark.parametrize("codec", [*BUILT_IN, "pickle"])
@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"to": 1, "subject": "b"}, "Expected `str`, got `int` - at `$.to`"),
        ({"to": "a"}, "Object missing required field `subject`"),
        ({"to": "a", "subject": "b", "bcc": "c"}, "Object contains unknown field `bcc`"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_in_one_sentence(
    codec: str, payload: dict[str, Any], says: str
) -> None:
    register("pickle", Pickle())

    assert (
        refusal(send, payload, codec, skip=1)
        == f"The payload of send is refused: {says}; it takes to, subject."
    )


@pytest.mark.parametrize("codec", [*BUILT_IN, "pickle"])
def test_a_payload_that_is_no_object_is_refused(codec: str) -> None:
    register("pickle", Pickle())

    def lenient(**more: Any) -> None: ...

    for function in (send, lenient):
        for value in ([1], "a", None):
            with pytest.raises(InvalidPayload, match="Expected `object`"):
                Arguments(function).decode(encode(value, codec), codec)


def test_a_place_deep_in_the_payload_is_named() -> None:
    def handler(points: list[Point]) -> None: ...

    assert "at `$.points[1].y`" in refusal(handler, {"points": [{"x": 1}, {"x": 1, "y": "two"}]})


def test_a_pydantic_model_says_what_it_misses_but_not_what_it_was_given() -> None:
    def handler(user: User) -> None: ...

    said = refusal(handler, {"user": {"name": ["secret"]}})

    assert "name: Input should be a valid string; years: Field required - at `$.user`" in said
    assert "secret" not in said
    assert "\n" not in said


def test_a_type_that_no_codec_can_make_is_refused_unless_the_codec_brings_it() -> None:
    def handler(thing: Unknown) -> None: ...

    register("pickle", Pickle())
    arguments = Arguments(handler)

    assert "Expected `Unknown`, got `int` - at `$.thing`" in refusal(handler, {"thing": 1})
    assert isinstance(arguments.decode(encode({"thing": Unknown()}, "pickle"), "pickle")["thing"], Unknown)


@pytest.mark.parametrize("codec", [*BUILT_IN, "pickle"])
def test_the_handlers_own_default_applies_to_what_is_left_out(codec: str) -> None:
    def handler(a: int, b: int = 2, c: list[int] = [3], d: str = None) -> None: ...  # type: ignore[assignment] # noqa: B006, RUF013

    register("pickle", Pickle())
    arguments = Arguments(handler)

    assert arguments.decode(arguments.check({"a": 1}, codec), codec) == {"a": 1}
    given = {"a": 1, "b": 5, "c": [], "d": None}
    assert arguments.decode(arguments.check(given, codec), codec) == given


@pytest.mark.parametrize("codec", [*BUILT_IN, "pickle"])
def test_a_handler_that_takes_more_gets_names_it_does_not_list(codec: str) -> None:
    def handler(a: int, b: int = 2, **more: Point) -> None: ...

    register("pickle", Pickle())
    arguments = Arguments(handler)

    assert arguments.decode(encode({"a": 1, "p": {"x": 1}}, codec), codec) == {"a": 1, "p": Point(1)}
    assert "Expected `object`, got `int`" in refusal(handler, {"a": 1, "p": 5}, codec)
    assert "missing required field `a`" in refusal(handler, {"p": {"x": 1}}, codec)


def test_a_handler_without_parameters_takes_an_empty_payload_only() -> None:
    assert Arguments(lambda: None).decode(b"{}") == {}
    assert "unknown field `a`" in refusal(lambda: None, {"a": 1})
    assert refusal(lambda: None, {"a": 1}).endswith("it takes nothing.")


def test_annotations_may_be_strings() -> None:
    def handler(context: "NotImported", point: "Point", tags: "list[str] | None" = None) -> "Nowhere": ...  # type: ignore[name-defined] # noqa: F821

    arguments = Arguments(handler, skip=1)

    assert arguments.decode(b'{"point": {"x": 1}, "tags": ["a"]}') == {"point": Point(1), "tags": ["a"]}


def test_an_annotation_that_nobody_knows_is_refused_when_the_handler_is_declared() -> None:
    def handler(point: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(InvalidInput, match="handler cannot be resolved: name 'Nowhere' is not defined"):
        Arguments(handler)


def test_types_that_cannot_be_told_apart_are_refused_when_the_handler_is_declared() -> None:
    def handler(either: Point | Address) -> None: ...

    with pytest.raises(InvalidInput, match=r"parameters of .*handler cannot be read from a payload"):
        Arguments(handler)


def test_parameters_without_a_name_are_refused_when_the_handler_is_declared() -> None:
    def by_position(a: int, /) -> None: ...
    def by_the_dozen(*many: int) -> None: ...

    for function, parameter in ((by_position, "a"), (by_the_dozen, "\\*many")):
        with pytest.raises(InvalidInput, match=f"'{parameter}' of .* cannot be given by name"):
            Arguments(function)


def test_anything_that_can_be_called_can_be_a_handler() -> None:
    class Greeter:
        def __call__(self, point: "Point") -> None: ...
        def greet(self, point: "Point") -> None: ...

    @functools.wraps(Greeter.greet)
    def wrapped(*args: Any, **kwargs: Any) -> None: ...

    bound = functools.partial(Greeter.greet, Greeter())
    for function, skip in ((Greeter(), 0), (Greeter().greet, 0), (bound, 0), (wrapped, 1)):
        assert Arguments(function, skip=skip).decode(b'{"point": {"x": 1}}') == {"point": Point(1)}


def test_arguments_over_the_limit_are_refused() -> None:
    with pytest.raises(InvalidPayload, match="allowed are 10"):
        Arguments(send, skip=1).check({"to": "a", "subject": "b"}, limit=10)


def test_a_payload_is_what_any_other_program_would_call_json() -> None:
    payload = Arguments(send, skip=1).check({"to": "ä", "subject": "b"})
    assert json.loads(payload) == {"to": "ä", "subject": "b"}
