"""Crons that handlers cannot declare are refused where they would be declared."""

from typing import Any

import pytest

from forge_jobs import Cron, Forge, ForgeError, InvalidCron, InvalidInput, UnfitPayload, Unique, every


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
        (Cron("@daily", payload=[1]), ForgeError, "refused|Expected"),
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
    "options",
    [{"unique": Unique()}, {"group": "all"}, {"fair_by": "to"}],
    ids=lambda options: next(iter(options)),
)
def test_what_holds_only_for_calls_is_not_declared_with_a_cron(forge: Forge, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"cron and {next(iter(options))} are both given"):

        @forge.handler(cron="@daily", **options)
        async def send(to: str = "") -> None: ...


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
