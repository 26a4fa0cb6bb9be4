"""What the operator is told, and one sentence for each thing that is wrong with it."""

from pathlib import Path

import pytest

from forge_jobs import InvalidSetting
from forge_operator.environment import Environment

URL = "postgresql://forge:secret@db:5432/forge"


def load(**variables: str) -> Environment:
    return Environment.load({"FORGE_DATABASE_URL": URL, **variables}, namespace="forge-system")


def test_nothing_but_the_database_need_be_said() -> None:
    found = load()

    assert found.database_url == URL
    assert (found.namespace, found.namespaces, found.lease) == ("forge-system", (), "forge-jobs-operator")
    assert found.pools.database.name == "forge-jobs-database"
    assert "secret" not in repr(found)


def test_everything_can_be_said() -> None:
    found = load(
        FORGE_SCHEMA="jobs",
        FORGE_OPERATOR_NAMESPACE="ops",
        FORGE_OPERATOR_WATCH_NAMESPACES="a, b,,a",
        FORGE_OPERATOR_POD="operator-0",
        FORGE_OPERATOR_DATABASE_SECRET="pg",
        FORGE_OPERATOR_DATABASE_KEY="uri",
        FORGE_OPERATOR_METRICS_PORT="0",
        FORGE_OPERATOR_RESYNC_SECONDS="2.5",
        FORGE_OPERATOR_WORKER_GRACE_SECONDS="600",
        FORGE_OPERATOR_WORKER_TOPOLOGY_SPREAD="true",
        FORGE_OPERATOR_CONNECTIONS_PER_WORKER="0",
        FORGE_LOG_LEVEL="DEBUG",
        FORGE_LOG_FORMAT="json",
    )

    assert (found.schema, found.pools.schema, found.namespace, found.namespaces) == (
        "jobs",
        "jobs",
        "ops",
        ("a", "b"),
    )
    assert (found.identity, found.port, found.resync_seconds) == ("operator-0", 0, 2.5)
    assert (found.pools.database.name, found.pools.database.key) == ("pg", "uri")
    assert found.pools.grace_seconds == 600 and found.pools.topology_spread
    assert found.pools.connections_per_worker == 0
    assert (found.log_level, found.log_format) == ("DEBUG", "json")


def test_an_empty_variable_says_nothing_as_charts_write_it() -> None:
    assert load(FORGE_SCHEMA="", FORGE_OPERATOR_WATCH_NAMESPACES=" ") == load()


def test_the_database_can_be_said_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL + "\n", encoding="utf-8")

    said = {"FORGE_DATABASE_URL_FILE": str(file), "FORGE_DATABASE_URL": "postgresql://old@db/forge"}
    found = Environment.load(said)

    assert found.database_url == URL
    assert found.database_url_file == file  # it is read again


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"FORGE_OPERATOR_CONNECTIONS_PER_WORKER": "3"},
            "FORGE_OPERATOR_CONNECTIONS_PER_WORKER is '3', allowed is 0, or 5 to 10000",
        ),
        ({"FORGE_DATABASE_URL": ""}, "FORGE_DATABASE_URL is '', allowed is postgresql://"),
        ({"FORGE_DATABASE_URL": "mysql://u:secret@h/d"}, "FORGE_DATABASE_URL is 'mysql://***', allowed is"),
        ({"FORGE_DATABASE_URL": "secret"}, "FORGE_DATABASE_URL is '***', allowed is"),
        ({"FORGE_DATABASE_URL": "forge:secret@db/forge"}, "FORGE_DATABASE_URL is '***', allowed is"),
        (
            {"FORGE_DATABASE_URL_FILE": "/nowhere"},
            "FORGE_DATABASE_URL_FILE is '/nowhere', allowed is a file that can be read",
        ),
        (
            {"FORGE_OPERATOR_METRICS_PORT": "http"},
            "FORGE_OPERATOR_METRICS_PORT is 'http', allowed is a whole",
        ),
        ({"FORGE_OPERATOR_WORKERS": "0"}, "FORGE_OPERATOR_WORKERS is '0', allowed is a whole number from 1"),
        ({"FORGE_OPERATOR_TICK_SECONDS": "nan"}, "FORGE_OPERATOR_TICK_SECONDS is 'nan', allowed is seconds"),
        (
            {"FORGE_OPERATOR_WATCH_NAMESPACES": "a,B"},
            "FORGE_OPERATOR_WATCH_NAMESPACES is 'B', allowed is names",
        ),
        ({"FORGE_OPERATOR_DATABASE_KEY": "a/b"}, "FORGE_OPERATOR_DATABASE_KEY is 'a/b', allowed is the key"),
        ({"FORGE_OPERATOR_WORKER_TOPOLOGY_SPREAD": "maybe"}, "is 'maybe', allowed is one of true, false"),
        (
            {"FORGE_OPERATOR_CONNECTIONS_PER_WORKER": "-1"},
            "is '-1', allowed is a whole number from 0 to 10000",
        ),
        ({"FORGE_LOG_LEVEL": "loud"}, "FORGE_LOG_LEVEL is 'loud', allowed is one of debug"),
    ],
)
def test_a_wrong_value_is_one_sentence(variables: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load(**variables)

    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)
