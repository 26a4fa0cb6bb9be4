"""What is shown of arguments and results that are redacted, and what is not in any text about them."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from forge_jobs import Forge, InvalidInput, KeyLimit
from forge_jobs.codecs import new_key, register, sealed
from forge_jobs.errors import InvalidPayload
from forge_jobs.model.error_text import LONGEST_ERROR, describe, kept, sentence
from forge_jobs.model.mask import LONGEST, MOST, Mask, masking
from forge_jobs.model.redaction import both, decoded, encoded
from forge_jobs.rules.redaction import secrets, visible

CARD = "4111-1111-1111-1111"


@pytest.mark.parametrize(
    ("redacted", "shown"),
    [
        (False, {"to": "ada", "card": CARD, "more": [{"card": {"n": 1}, "x": 1}]}),
        (True, "(redacted)"),
        (("card",), {"to": "ada", "card": "(redacted)", "more": [{"card": "(redacted)", "x": 1}]}),
        (("more",), {"to": "ada", "card": CARD, "more": "(redacted)"}),
    ],
)
def test_entries_of_redacted_names_are_hidden_wherever_they_are(redacted: Any, shown: Any) -> None:
    value = {"to": "ada", "card": CARD, "more": [{"card": {"n": 1}, "x": 1}]}

    assert visible(value, redacted) == shown


@pytest.mark.parametrize(
    ("one", "other", "either"),
    [
        (False, False, False),
        (True, ("a",), True),
        (("a",), True, True),
        (False, ("a",), ("a",)),
        (("a",), False, ("a",)),
        (("a", "b"), ("b", "c"), ("a", "b", "c")),
    ],
)
def test_what_either_of_two_hides_is_hidden(one: Any, other: Any, either: Any) -> None:
    assert both(one, other) == either


def test_what_a_later_release_redacts_in_another_way_is_hidden() -> None:
    assert [decoded(encoded(value)) for value in (False, True, ("a", "b"))] == [False, True, ("a", "b")]
    assert decoded('{"paths":["$.a"]}') is True


def hidden(text: str, arguments: dict[str, Any], redacted: Any = True) -> str:
    with masking(Mask(secrets(arguments, redacted))):
        return kept(text)


def test_an_error_does_not_show_a_redacted_value_however_it_is_written() -> None:
    secret = 'a "b"/ü'
    for written in (secret, 'a \\"b\\"/\\u00fc', "a%20%22b%22%2F%C3%BC", "a+%22b%22%2F%C3%BC"):
        assert hidden(f"no: {written}!", {"text": secret}) == "no: (redacted)!"


def test_short_values_are_hidden_as_words_only() -> None:
    assert hidden("DE: DEAD in DE", {"land": "DE"}) == "(redacted): DEAD in (redacted)"
    assert hidden("line 5, 12345, True", {"a": 5, "b": 12345, "c": True}) == "line 5, (redacted), True"
    assert hidden("nothing", {"empty": "", "none": None}) == "nothing"


def test_only_arguments_of_redacted_names_are_hidden() -> None:
    @dataclass
    class Payment:
        card: str
        to: str

    arguments = {"to": "ada", "payment": Payment(CARD, "bob")}

    assert hidden(f"{CARD} of ada to bob", arguments, ("card",)) == "(redacted) of ada to bob"
    assert hidden(f"{CARD} of ada to bob", arguments, ("payment",)) == "(redacted) of ada to (redacted)"


def test_a_value_is_hidden_before_a_long_error_is_cut() -> None:
    error = ValueError("x" * (LONGEST_ERROR // 2 - 10) + CARD + "y" * 3 * LONGEST_ERROR)
    error.add_note(f"about {CARD}")

    with masking(Mask([CARD])):
        texts = [describe(error), sentence(error), kept(str(error))]

    for text in texts:
        assert CARD[:6] not in text
        assert len(text) <= 2 * LONGEST_ERROR


def test_a_text_that_is_too_long_to_look_through_ends_before_a_value_may() -> None:
    mask = Mask([CARD, "x" * 50])

    for length in range(LONGEST - 60, LONGEST + 5):
        text = mask.over("-" * length + CARD + "-" * 100)
        assert CARD[:4] not in text


def test_of_a_job_with_too_many_values_no_text_is_shown() -> None:
    with masking(Mask(secrets({"numbers": list(range(10_000, 10_000 + MOST + 1))}, True))):
        assert describe(ValueError("anything")).startswith("(redacted)")
        assert kept("anything") == "(redacted)"


def test_causes_and_groups_do_not_show_it_either() -> None:
    try:
        try:
            raise KeyError(CARD)
        except KeyError as error:
            raise ExceptionGroup("two", [ValueError(f"bad {CARD}"), TypeError(CARD)]) from error
    except ExceptionGroup as error:
        with masking(Mask([CARD])):
            text = describe(error)

    assert CARD not in text
    assert text.count("(redacted)") >= 3


class Card(msgspec.Struct):
    number: str
    kind: str


def pay_handler(redact: Any, **options: Any) -> Any:
    forge = Forge()

    @forge.handler(redact=redact, **options)
    async def pay(to: str, card: Card, amount: int = 0) -> None: ...

    return pay


@pytest.mark.parametrize(
    ("redact", "payload", "says"),
    [
        (
            ("card",),
            {"to": "a", "card": {"number": 4111, "kind": "x"}},
            "what is at `$.card.number` does not fit",
        ),
        (
            ("card",),
            {"to": 5, "card": {"number": "4111", "kind": "x"}},
            "Expected `str`, got `int` - at `$.to`",
        ),
        (True, {"to": 5, "card": {"number": "4111", "kind": "x"}}, "what is at `$.to` does not fit"),
        (True, {"to": "a"}, "missing required field `card`"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_without_its_values(
    redact: Any, payload: Any, says: str
) -> None:
    handler = pay_handler(redact)

    with pytest.raises(InvalidPayload) as refused:
        handler.arguments.check(payload)

    assert says in str(refused.value)
    assert "4111" not in str(refused.value)


@pytest.mark.parametrize(
    ("redact", "options", "says"),
    [
        (
            "crad",
            {},
            "redact of handler 'pay' names 'crad', allowed is one of its arguments: it takes to, card, amount.",
        ),
        (5, {}, "redact of handler 'pay' is 5, allowed is True, or names of arguments."),
        ([5], {}, "redact of handler 'pay' names 5, allowed is True, or names of arguments."),
        (
            "to",
            {"fair_by": "to"},
            "fair_by of handler 'pay' is by 'to', which is redacted or sealed, and would be seen; "
            "allowed is a function of the arguments, which says what may be.",
        ),
        (
            True,
            {"limits": KeyLimit("mail", by="to")},
            "limits of handler 'pay' is by 'to', which is redacted or sealed, and would be seen; "
            "allowed is a function of the arguments, which says what may be.",
        ),
    ],
)
def test_what_cannot_be_redacted_is_refused(redact: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pay_handler(redact, **options)

    assert str(refused.value) == says


def test_a_function_may_say_what_of_a_redacted_argument_is_seen() -> None:
    handler = pay_handler("to", fair_by=lambda to: to[:1])

    assert handler.redact == ("to",)


def test_a_sealed_kind_has_no_cron_with_arguments() -> None:
    from forge_jobs import Cron

    register("sealed", sealed(keys={"a": new_key()}))
    forge = Forge()

    @forge.handler(codec="sealed", cron="0 3 * * *")
    async def sweep() -> None: ...

    assert (sweep.declared.redact, sweep.declared.sealed) == (True, True)
    with pytest.raises(InvalidInput) as refused:

        @forge.handler(codec="sealed", cron=Cron("0 3 * * *", payload={"to": "ada"}))
        async def mail(to: str) -> None: ...

    assert str(refused.value) == (
        "Jobs of kind 'mail' are sealed, and the payload is json; allowed is the codec 'sealed', which a program has "
        "that registers it, or no arguments."
    )
