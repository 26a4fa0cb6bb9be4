from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.errors import InvalidInput
from forge_jobs.model.job import FOREVER, Enqueued
from forge_jobs.rules import names


@pytest.mark.parametrize("name", ["mail", "a", "x" * 128, "Mail-2.eu:high", "<lambda>", "größe", "队列"])
def test_printable_names_without_spaces_and_commas_are_allowed(name: str) -> None:
    assert names.queue(name) == names.kind(name) == names.checked_name(name, "scope") == name


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a,b", "a\n", "a\0", "x" * 129, "\ud800", "a\u00a0b", None, 5, b"mail"]
)
def test_other_names_are_refused_in_one_sentence(name: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        names.queue(name)
    assert str(caught.value).startswith("The queue is ")
    assert str(caught.value).endswith("allowed are 1 to 128 printable characters without spaces and commas.")


def test_the_sentence_says_what_it_is_that_has_no_such_name() -> None:
    with pytest.raises(InvalidInput, match=r"^The scope is 'a b', allowed are"):
        names.checked_name("a b", "scope")


def test_a_very_long_name_is_cut_in_the_sentence() -> None:
    with pytest.raises(InvalidInput) as caught:
        names.kind("x" * 100_000)
    assert "100,002 characters" in str(caught.value)
    assert len(str(caught.value)) < 400


@given(name=st.text(max_size=140))
def test_a_name_that_is_allowed_can_be_stored_and_listed(name: str) -> None:
    try:
        names.queue(name)
    except InvalidInput:
        return
    name.encode()
    assert names.queues(f"{name},{name}") == (name,)
    assert name.split() == [name]


def test_a_list_of_queues_keeps_its_order_and_drops_repetitions() -> None:
    assert names.queues("mail, default ,mail,a") == ("mail", "default", "a")


@pytest.mark.parametrize("text", ["", ",", "a,,b", "a,", "a b"])
def test_a_list_with_an_empty_or_ill_formed_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        names.queues(text)


@pytest.mark.parametrize("key", ["welcome:42", "a b, c\nd", "x" * 512, "ключ"])
def test_a_key_is_any_text(key: str) -> None:
    assert names.key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b", "\udfff", None, 42])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^The key is .*, allowed are 1 to 512 characters of text\.$"):
        names.key(key)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (names.priority, -32768),
        (names.priority, 32767),
        (names.max_attempts, 1),
        (names.max_attempts, 2147483647),
    ],
)
def test_numbers_at_the_edge_are_allowed(check: Callable[[object], int], value: int) -> None:
    assert check(value) == value


def test_no_number_of_attempts_is_for_ever() -> None:
    assert names.max_attempts(None) == FOREVER


@pytest.mark.parametrize("value", [-32769, 32768, True, 1.0, "1", None])
def test_a_priority_that_is_no_smallint_is_refused(value: Any) -> None:
    with pytest.raises(
        InvalidInput, match=r"^The priority is .*, allowed is a whole number from -32768 to 32767\.$"
    ):
        names.priority(value)


@pytest.mark.parametrize("value", [0, -1, 2147483648, False, 1.5, "5"])
def test_other_numbers_of_attempts_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^max_attempts is .*, allowed is a whole number from 1"):
        names.max_attempts(value)


@pytest.mark.parametrize(
    "value", [["mail"], ("mail",), {"mail"}, (name for name in ["mail"]), {"mail": 1}.keys()]
)
def test_any_collection_is_a_list(value: Any) -> None:
    assert list(names.listed(value, "queues")) == ["mail"]


@pytest.mark.parametrize("value", ["mail", "", b"mail", {"mail": 1}, {}, None, 5])
def test_a_text_or_a_mapping_is_no_list(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        names.listed(value, "queues")
    assert str(caught.value) == f"queues is {value!r}, allowed is a list."


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("mial", ["default", "mail"], "mail"),
        ("mails", ["default", "mail"], "mail"),
        ("defualt", ["default"], "default"),
        ("reports", ["default", "mail"], None),
        ("mail", ["mail"], None),
        ("mail", [], None),
    ],
)
def test_the_nearest_name_is_the_one_that_may_be_meant(
    name: str, known: list[str], meant: str | None
) -> None:
    assert names.nearest(name, known) == meant


def test_a_job_is_named_by_its_id_or_by_what_an_enqueue_returned() -> None:
    assert names.job_id(7) == names.job_id(Enqueued(7)) == names.job_id(Enqueued(7, duplicate=True)) == 7
