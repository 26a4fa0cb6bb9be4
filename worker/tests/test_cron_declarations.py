"""What handlers declare of a cron: what is new among it, and what an older release only says again."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import CronConfig, Forge, InvalidCron, KeyMode, Missed
from forge_jobs.handlers.cron import Cron
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.rules.cron_declarations import (
    REMEMBERED,
    SaidCron,
    new_declaration,
    origin,
    read,
    said,
    written,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def declared(expression: str, **facts: object) -> str:
    return written(CronConfig(name="nightly", expression=expression, kind="clean_up", **facts))  # type: ignore[arg-type]


EARLY, LATE, LATEST = declared("0 3 * * *"), declared("0 4 * * *"), declared("0 5 * * *")


def live(*texts: str) -> Sequence[SaidCron]:
    """What workers say, the oldest first."""
    return [SaidCron(text, NOON + timedelta(hours=hour)) for hour, text in reversed(list(enumerate(texts)))]


def after(*steps: Sequence[SaidCron]) -> tuple[CronConfig | None, list[str | None]]:
    """Return the cron after these looks at what is said, and what each of them changed it to."""
    cron, changes = None, list[str | None]()
    for step in steps:
        new = new_declaration(cron, step)
        changes.append(None if new is None else new.expression)
        cron = new or cron
    return cron, changes


def test_what_is_declared_is_written_and_read_with_every_fact() -> None:
    config = CronConfig(
        name="digest",
        expression="*/5 * * * *",
        kind="send",
        timezone="Europe/Berlin",
        payload=b'{"to":"\xc3\xa4"}',
        queue="mail",
        priority=-3,
        max_attempts=2,
        timeout=timedelta(seconds=1.5),
        start_by=timedelta(hours=1),
        deadline=timedelta(days=1),
        key="k",
        key_mode=KeyMode.REPLACE,
        missed=Missed.ALL,
        missed_limit=7,
        missed_within=timedelta(hours=36),
        tags=("nightly", "shop"),
    )

    assert read(written(config)) == config


def test_what_a_handler_leaves_open_is_not_written_so_that_a_later_release_writes_the_same() -> None:
    assert EARLY == '{"expression":"0 3 * * *","kind":"clean_up","name":"nightly"}'


def test_neither_state_nor_whether_it_is_enabled_is_declared() -> None:
    config = read(EARLY)

    assert written(replace(config, enabled=False, skipped=3, last_fire_at=NOON, managed_by="ada")) == EARLY


def test_a_declaration_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidCron, match="cannot be read by this release"):
        read('{"name":"nightly","expression":"@daily","kind":"k","missed":"sometimes"}')


def test_a_cron_is_declared_once() -> None:
    assert after(live(EARLY), live(EARLY), live())[1] == ["0 3 * * *", None, None]


def test_what_was_never_said_holds_at_once_also_beside_an_older_release() -> None:
    assert after(live(EARLY), live(EARLY, LATE))[1] == ["0 3 * * *", "0 4 * * *"]


def test_an_older_release_that_begins_anew_changes_nothing_beside_a_newer_one() -> None:
    assert after(live(EARLY), live(EARLY, LATE), live(LATE, EARLY), live(LATE))[1][2:] == [None, None]


def test_what_an_older_release_says_holds_again_when_the_newer_one_is_gone() -> None:
    assert after(live(EARLY), live(EARLY, LATE), live(LATE, EARLY), live(EARLY))[1][3:] == ["0 3 * * *"]


def test_of_three_releases_the_one_that_began_last_holds() -> None:
    cron, changes = after(live(EARLY, LATE, LATEST), live(EARLY, LATEST), live(LATE, EARLY))

    assert changes == ["0 5 * * *", None, "0 3 * * *"]
    assert cron is not None and cron.declared == EARLY


def test_a_release_may_come_and_go_as_often_as_one_likes() -> None:
    back_and_forth = [live(EARLY), live(LATE)] * 30

    assert after(*back_and_forth)[1] == ["0 3 * * *", "0 4 * * *"] * 30


def test_only_so_much_is_remembered_of_a_cron() -> None:
    cron, _ = after(*(live(declared(f"{minute} * * * *")) for minute in range(REMEMBERED + 10)))

    assert cron is not None and len(cron.declared_before) == REMEMBERED


def worker(text: str, **facts: object) -> WorkerInfo:
    named = WorkerInfo(1, "w", "here", 1, "1", ("default",), (), 1, {"nightly": text}, started_at=NOON)
    return replace(named, **facts)  # type: ignore[arg-type]


def test_workers_that_take_no_jobs_say_nothing() -> None:
    workers = [worker(EARLY, is_open=False), worker(LATE, draining=True), worker(LATEST)]

    assert said(workers) == {"nightly": [SaidCron(LATEST, NOON)]}


def test_what_began_last_is_said_first_however_often_it_is_said() -> None:
    workers = [
        worker(EARLY),
        worker(LATE, started_at=NOON + timedelta(hours=1)),
        worker(EARLY, started_at=NOON + timedelta(hours=2)),
    ]

    assert [one.text for one in said(workers)["nightly"]] == [LATE, EARLY]


def test_it_is_told_where_a_cron_comes_from() -> None:
    cron = replace(read(EARLY), declared=EARLY)

    assert origin(cron, {"nightly"}) == "code"
    assert origin(replace(cron, enabled=False), {"nightly"}) == "code"
    assert origin(replace(cron, tags=("shop",)), {"nightly"}) == "code, changed since"
    assert origin(cron, ()) == "code of no live worker"
    assert origin(replace(cron, declared=None), ()) == "people"
    assert origin(replace(cron, managed_by="crontab:shop.cron"), {"nightly"}) == "crontab:shop.cron"


def test_a_cron_whose_queue_follows_its_kind_is_as_declared_wherever_that_is() -> None:
    text = declared("@daily", queue_said=False)

    assert written(replace(read(text), queue="mail")) == text


def test_a_handler_declares_one_cron_or_several() -> None:
    forge = Forge("sqlite://:memory:")

    @forge.handler(cron="0 3 * * *", tags=["nightly"])
    async def clean_up() -> None: ...

    @forge.handler(
        cron=[
            "@hourly",
            Cron("@daily", name="all", payload={"full": True}, timezone="Europe/Berlin", key="all"),
        ]
    )
    async def report(full: bool = False) -> None: ...

    @forge.handler(singleton=True, cron=Cron("@daily", missed="all", missed_within=60, queue="slow", tags=()))
    async def count() -> None: ...

    @forge.batch_handler(cron=Cron("@daily", payload=["ada"]))
    async def notify(items: list[str]) -> None: ...

    crons = forge.handlers.crons()
    assert {name: cron.expression for name, cron in crons.items()} == {
        "clean_up": "0 3 * * *",
        "report": "@hourly",
        "all": "@daily",
        "count": "@daily",
        "notify": "@daily",
    }
    assert (crons["clean_up"].tags, crons["clean_up"].queue_said) == (("nightly",), False)
    assert (crons["all"].kind, crons["all"].payload, crons["all"].key) == ("report", b'{"full":true}', "all")
    assert (crons["count"].key, crons["count"].queue, crons["count"].tags) == ("singleton", "slow", ())
    assert (crons["count"].missed, crons["count"].missed_within) == (Missed.ALL, timedelta(minutes=1))
    assert crons["notify"].payload == b'["ada"]'


def test_of_two_releases_that_say_different_groups_the_newer_one_holds_while_it_lives() -> None:
    old, new = declared("@daily", groups='{"one":{}}'), declared("@daily", groups='{"other":{}}')

    first = new_declaration(None, live(old))
    second = new_declaration(first, live(old, new))
    again = new_declaration(second, live(old, new))
    taken_back = new_declaration(second, live(old))

    assert [cron and cron.groups for cron in (first, second, again, taken_back)] == [
        '{"one":{}}',
        '{"other":{}}',
        None,
        '{"one":{}}',
    ]
