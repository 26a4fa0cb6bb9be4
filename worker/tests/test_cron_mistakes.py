"""Crons that handlers cannot declare are refused where they would be declared."""

import re
from typing import Any

import pytest

from forge_jobs import Cron, Forge, InvalidCron, InvalidInput, UnfitPayload, Unique, every


@pytest.fixture
def forge() -> Forge:
    return Forge("sqlite://:memory:")


@pytest.mark.parametrize(
    ("cron", "error", "said"),
    [
        ("0 25 * * *", InvalidCron, "'0 25 [*] [*] [*]'"),
        ("0 0 30 2 *", InvalidCron, "names no day that ever comes"),
        ("", InvalidCron, "''"),
        (7, InvalidInput, "cron of handler 'send' is 7, allowed is an expression"),
        (None, InvalidInput, "cron of handler 'send' is None"),
        ([7], InvalidInput, "cron of handler 'send' is"),
        (every.day, InvalidInput, "cron of handler 'send' is"),
        (Cron("@daily", timezone="Mars/Base"), InvalidCron, "Mars/Base"),
        (Cron("@daily", name="two\nlines"), InvalidInput, "two"),
        (Cron("@daily", missed="some"), InvalidInput, "missed is 'some'"),
        (Cron("@daily", missed_within=0), InvalidInput, "missed_within is 0"),
        (Cron("@daily", key="k", overlap=False), InvalidInput, "overlap is false and key is given"),
        (Cron("@daily", delay=5), InvalidInput, "no option 'delay'"),
        (Cron("@daily", connection=None), InvalidInput, "no option 'connection'"),
        (["@daily", "@hourly"], InvalidInput, "two crons 'send'"),
        (Cron("@daily", payload={"to": "ada"}), UnfitPayload, "'?to'?|unknown field"),
        (Cron("@daily", payload=[1]), InvalidInput, "payload of 'send' is a list, allowed is a mapping"),
        (Cron("@daily", payload=1), InvalidInput, "payload of cron 'send' is 1"),  # type: ignore[arg-type]
    ],
)
def test_a_cron_that_cannot_be_is_refused_where_its_handler_is_declared(
    forge: Forge, cron: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):

        @forge.handler(cron=cron)
        async def send() -> None: ...

    assert dict(forge.handlers) == {}


def test_arguments_that_a_handler_needs_have_to_be_there(forge: Forge) -> None:
    with pytest.raises(UnfitPayload, match="to"):

        @forge.handler(cron="@daily")
        async def send(to: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "cron", "said"),
    [
        (
            {"group": lambda to: f"to:{to[3]}"},
            Cron("@daily", payload={"to": "ada"}),
            "The group of a job of 'send' is not known, since its function failed: IndexError",
        ),
        ({"group": lambda to: ""}, "@daily", "group is '', allowed are 1 to 128 characters"),
        ({"fair_by": "to"}, "@daily", "tenant is '', allowed are 1 to 128 characters"),
        ({"fair_by": "to"}, Cron("@daily", group="ada", tenant="ada"), "has the tenant 'ada' and a group"),
        ({"group": "all"}, Cron("@daily", tenant="ada"), "has the tenant 'ada' and a group"),
        ({}, Cron("@daily", group=lambda other: other), "group takes the argument 'other', which send does not have"),
        ({"unique": Unique()}, Cron("@daily", overlap=False), "overlap is false and unique is given"),
        ({"singleton": True}, Cron("@daily", overlap=False), "overlap is false and key is given"),
        ({"singleton": True}, Cron("@daily", key="k"), "Handler 'send' is a singleton and key is given"),
        ({"unique": Unique(debounce=60)}, "@daily", "unique has a debounce and the job is a cron's, which is not put off"),
        ({"unique": Unique(within=60)}, Cron("@daily", overlap=False), "overlap is false and unique is given"),
        ({}, Cron("@daily", unique=Unique("other")), "unique names the argument 'other', which send does not have"),
    ],
)  # fmt: skip
def test_what_a_cron_cannot_carry_is_refused_where_its_handler_is_declared(
    forge: Forge, options: dict[str, Any], cron: Any, said: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)):

        @forge.handler(cron=cron, **options)
        async def send(to: str = "") -> None: ...

    assert dict(forge.handlers) == {}


@pytest.mark.parametrize(("option", "value"), [("enabled", False), ("codec", "msgpack")])
def test_what_code_does_not_say_is_said_elsewhere(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"no option '{option}': "):
        Cron("@daily", **{option: value})


def test_two_handlers_do_not_declare_the_same_cron(forge: Forge) -> None:
    @forge.handler(cron=Cron("@daily", name="nightly"))
    async def send() -> None: ...

    with pytest.raises(InvalidInput, match="'nightly' is declared by the handler of 'send' already"):

        @forge.handler(cron=Cron("@hourly", name="nightly"))
        async def clean_up() -> None: ...

    assert list(forge.handlers) == ["send"]


def test_a_misspelt_option_names_the_right_one(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'cron', an expression like"):
        forge.handler(crontab="@daily")  # type: ignore[call-overload]
