"""Crontab files: what their lines say, and what loading them does."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import Forge, Group, InvalidInput, KeyMode, Managed, Missed
from forge_jobs.client import crontab
from forge_jobs.model.group import encoded
from tests.command_line import CommandLine, migrated

NIGHTLY = "0 3 * * * clean_up\n"


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(f"sqlite:///{tmp_path / 'jobs.db'}") as forge:
        yield forge


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_line_has_when_and_what() -> None:
    [cron] = crontab.parse("# comment\n\n  */5  * * * mon-fri\tcheck  \n", {}, {})

    assert (cron.name, cron.expression, cron.kind) == ("check", "*/5 * * * mon-fri", "check")
    assert (cron.timezone, cron.payload, cron.missed) == ("UTC", b"{}", Missed.LATEST)


def test_a_line_may_have_options_and_arguments() -> None:
    [cron] = crontab.parse(
        "@daily report ?id=shop&fill=1w2d3h4m5s&max=3&queue=slow&priority=-5&job_key=shop%20report"
        '&job_key_mode=replace&timeout=10m&tags=a,b&group=shop%201 {"shop": {"id": 1}}',
        {},
        {},
    )

    assert (cron.name, cron.expression, cron.queue, cron.priority) == ("shop", "@daily", "slow", -5)
    assert (cron.max_attempts, cron.timeout, cron.tags) == (3, timedelta(minutes=10), ("a", "b"))
    assert (cron.key, cron.key_mode, cron.payload) == ("shop report", KeyMode.REPLACE, b'{"shop":{"id":1}}')
    assert cron.groups == encoded([Group("shop 1")])
    assert (cron.missed, cron.missed_within) == (
        Missed.ALL,
        timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5),
    )


def test_a_time_zone_holds_for_the_lines_below_it() -> None:
    text = f"{NIGHTLY}CRON_TZ=Europe/Berlin\n@daily a\n@daily b ?timezone=Asia/Tokyo\n"

    assert [cron.timezone for cron in crontab.parse(text, {}, {})] == ["UTC", "Europe/Berlin", "Asia/Tokyo"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 3 * * clean_up", "allowed is five fields or @daily and kin, a kind"),
        ("0 3 * * *", "allowed is five fields or @daily and kin, a kind"),
        ("0 25 * * * clean_up", "'0 25 * * *'"),
        ("@daily clean_up ?fil=1d", "There is no option 'fil', allowed is one of deadline, fill, group, id,"),
        ("@daily clean_up ?fill=soon", "fill is 'soon', allowed are seconds"),
        ("@daily clean_up ?fill=1d&missed=all", "fill and missed are both given"),
        ("@daily clean_up ?max=many", "max is 'many', allowed is a whole number"),
        ("@daily clean_up ?overlap=no", "overlap is 'no', allowed is true or false"),
        ("@daily clean_up ?job_key_mode=steal&job_key=k", "'steal'"),
        ("@daily clean_up {shop: 1}", "allowed is a JSON object"),
        ("@daily clean_up ?timezone=Mars/Base", "Mars/Base"),
        ("0 3 * * * clean_up", "cron 'clean_up' is in line 1 already"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line: str, said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        crontab.parse(NIGHTLY + line, {}, {})

    assert str(error.value).startswith("Line 2: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


async def test_a_crontab_is_loaded_and_what_is_gone_from_it_is_pruned(forge: Forge) -> None:
    async def load(text: str, **options: bool) -> list[tuple[str, str]]:
        loaded = await forge.crons.load(text, owner="crontab:shop", **options)
        return [(cron.name, cron.change) for cron in loaded]

    assert await load(NIGHTLY + "@daily report\n", dry_run=True) == [("clean_up", "new"), ("report", "new")]
    assert await forge.crons.list() == []
    assert await load(NIGHTLY + "@daily report\n") == [("clean_up", "new"), ("report", "new")]
    first = await forge.crons.get("clean_up")
    assert (first.managed_by, first.enabled) == ("crontab:shop", True)

    assert await load("0 4 * * * clean_up\n@daily report\n") == [("clean_up", "changed"), ("report", "same")]
    assert await load(NIGHTLY) == [("clean_up", "changed"), ("report", "left")]
    assert [cron.name for cron in await forge.crons.list()] == ["clean_up", "report"]
    assert await load(NIGHTLY, prune=True) == [("clean_up", "same"), ("report", "deleted")]
    assert [cron.name for cron in await forge.crons.list()] == ["clean_up"]


async def test_a_cron_of_somebody_else_keeps_the_whole_file_out(forge: Forge) -> None:
    await forge.crons.set("report", "@daily", "report", managed_by="ForgeCron shop/report")

    with pytest.raises(Managed):
        await forge.crons.load(NIGHTLY + "@hourly report\n", owner="crontab:shop")

    assert [cron.name for cron in await forge.crons.list()] == ["report"]


async def test_a_cron_of_a_crontab_is_changed_there_only(forge: Forge) -> None:
    await forge.crons.set("clean_up", "@daily", "clean_up")
    await forge.crons.load(NIGHTLY, owner="crontab:shop")

    with pytest.raises(Managed, match="managed by crontab:shop; change it there"):
        await forge.crons.set("clean_up", "@daily", "clean_up")


def test_a_file_is_loaded_from_the_command_line(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "shop.cron"
    file.write_text(NIGHTLY + "@daily report\n")

    assert [cron["change"] for cron in cli.fine("cron", "load", str(file))] == ["new", "new"]
    file.write_text(NIGHTLY)
    assert "--prune deletes them" in cli("cron", "load", str(file)).out
    assert "Nothing was changed." in cli("cron", "load", str(file), "--prune", "--dry-run").out
    assert [cron["change"] for cron in cli.fine("cron", "load", str(file), "--prune")] == ["same", "deleted"]
    [cron] = cli.fine("cron", "list")
    assert (cron["name"], cron["managed_by"]) == ("clean_up", "crontab:shop.cron")


def test_a_file_that_cannot_be_loaded_changes_nothing(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "shop.cron"
    file.write_text(NIGHTLY + "@never report\n")

    answer = cli("cron", "load", str(file))

    assert (answer.code, len(answer.error.splitlines())) == (2, 1)
    assert "Line 2: " in answer.error
    assert cli.fine("cron", "list") == []
    assert "cannot be read" in cli("cron", "load", str(tmp_path / "nix")).error
