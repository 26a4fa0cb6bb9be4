import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from forge_jobs import Forge
from forge_jobs.errors import InvalidInput, InvalidSetting
from forge_jobs.settings.database_file import CONNECTIONS, OUTSIDE_THE_POOL
from forge_jobs.settings.environment import KNOWN, Settings
from forge_jobs.settings.home_folder import expanded
from forge_jobs.storage import open_storage
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.postgres import PostgresStorage

ROOT = Path(__file__).parents[2]
EMPTY = Path("/nowhere/at/all")


def load(cwd: Path = EMPTY, /, **environ: str) -> Settings:
    return Settings.load(environ, cwd)


def refusal(cwd: Path = EMPTY, /, **environ: str) -> str:
    with pytest.raises(InvalidSetting) as caught:
        load(cwd, **environ)
    assert isinstance(caught.value, InvalidInput)
    return str(caught.value)


def test_nothing_said_is_sqlite_in_the_working_directory() -> None:
    assert load() == Settings(
        database_url="sqlite:////nowhere/at/all/jobs/data/queue.sqlite",
        database="sqlite:////nowhere/at/all/jobs/data/queue.sqlite",
    )


def test_the_process_is_asked_when_nothing_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [key for key in os.environ if key.startswith(("FORGE_", "JOBS_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("FORGE_QUEUES", "mail")
    monkeypatch.chdir(tmp_path)

    settings = Settings.load()

    assert settings.queues == ("mail",)
    assert settings.database_url == f"sqlite:///{tmp_path}/jobs/data/queue.sqlite"


def test_everything_may_be_said() -> None:
    settings = load(
        FORGE_DATABASE_URL="postgresql://ann:secret@db/shop",
        FORGE_SCHEMA="jobs",
        FORGE_QUEUES="mail, default",
        FORGE_WORKER_PREFIX="shop",
        FORGE_WORKER_VERSION="v1.2.3",
        FORGE_WORKER_NAME="shop-1",
        FORGE_CONCURRENCY="50",
        FORGE_HEARTBEAT_SECONDS="0.5",
        FORGE_STALE_SECONDS="1.5",
        FORGE_GRACE_SECONDS="0",
        FORGE_METRICS_PORT="0",
        FORGE_LOG_FORMAT="JSON",
        FORGE_LOG_LEVEL="Debug",
        FORGE_MAX_PAYLOAD_BYTES="100",
        FORGE_AUTO_MIGRATE="no",
        FORGE_APP="shop.jobs:forge",
        FORGE_TEST_DATABASE_URL="postgresql://db/test",
        FORGE_POOL_UID="6f0c4e1a-8e5f-4d0c-9b70-2f0d6f9a3c11",
        FORGE_WORKER_VERSION_ID="rm452vxk",
        FORGE_POD_NAME="mail-worker-v3-rm452vxk-7d9f8c5b4-x2x4z",
        FORGE_POD_UID="0b9e",
        FORGE_NODE_NAME="node-1",
        FORGE_DEPLOYMENT="mail-worker-v3-rm452vxk",
    )

    assert settings == Settings(
        database_url="postgresql://ann:secret@db/shop",
        database="postgresql://ann:***@db/shop",
        schema="jobs",
        queues=("mail", "default"),
        worker_prefix="shop",
        worker_version="v1.2.3",
        worker_name="shop-1",
        concurrency=50,
        heartbeat=timedelta(seconds=0.5),
        stale=timedelta(seconds=1.5),
        grace=timedelta(0),
        metrics_port=0,
        log_format="json",
        log_level="DEBUG",
        max_payload_bytes=100,
        auto_migrate=False,
        app="shop.jobs:forge",
        pool="6f0c4e1a-8e5f-4d0c-9b70-2f0d6f9a3c11",
        version_id="rm452vxk",
        pod="mail-worker-v3-rm452vxk-7d9f8c5b4-x2x4z",
    )


@pytest.mark.parametrize(
    ("key", "given", "allowed"),
    [
        ("FORGE_DATABASE_URL", "mysql://db/shop", "postgresql://user:password@host:port/database"),
        ("FORGE_SCHEMA", "pg_jobs", "a name of 1 to 63 bytes without $ that does not begin with pg_"),
        ("FORGE_SCHEMA", "x" * 64, "a name of"),
        ("FORGE_SCHEMA", "a$b", "a name of"),
        ("FORGE_QUEUES", "a,,b", "names of 1 to 128 printable characters"),
        ("FORGE_QUEUES", "a b", "names of"),
        ("FORGE_WORKER_PREFIX", "-a", "1 to 63 characters of"),
        ("FORGE_WORKER_VERSION", "x" * 64, "1 to 63 characters of"),
        ("FORGE_WORKER_NAME", "a b", "1 to 128 printable characters"),
        ("FORGE_CONCURRENCY", "0", "a whole number from 1 to 10000"),
        ("FORGE_CONCURRENCY", "many", "a whole number"),
        ("FORGE_CONCURRENCY", "1.5", "a whole number"),
        ("FORGE_CONCURRENCY", "9" * 5000, "a whole number"),
        ("FORGE_HEARTBEAT_SECONDS", "0", "seconds from 0.1 to 3600"),
        ("FORGE_HEARTBEAT_SECONDS", "nan", "seconds from"),
        ("FORGE_HEARTBEAT_SECONDS", "5s", "seconds from"),
        ("FORGE_STALE_SECONDS", "10", "more than twice FORGE_HEARTBEAT_SECONDS, which is 5"),
        ("FORGE_STALE_SECONDS", "-1", "seconds from"),
        ("FORGE_GRACE_SECONDS", "-1", "seconds from 0 to 86400"),
        ("FORGE_GRACE_SECONDS", "inf", "seconds from"),
        ("FORGE_METRICS_PORT", "-2", "a whole number from -1 to 65535"),
        ("FORGE_METRICS_PORT", "65536", "a whole number"),
        ("FORGE_LOG_FORMAT", "xml", "one of text, json"),
        ("FORGE_LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("FORGE_MAX_PAYLOAD_BYTES", "1", "a whole number from 2 to 268435456"),
        ("FORGE_AUTO_MIGRATE", "maybe", "one of true, yes, on, 1, false, no, off, 0"),
        ("FORGE_APP", "shop", "module:attribute, such as shop:forge"),
        ("FORGE_APP", "shop:", "module:attribute"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(key: str, given: str, allowed: str) -> None:
    said = refusal(**{key: given})
    assert said.startswith(f"{key} is {given!r}, allowed is {allowed}")
    assert said.endswith(".")


def test_a_worker_with_half_a_version_is_refused() -> None:
    # it would pass every gate
    assert refusal(FORGE_POOL_UID="a-pool") == (
        "FORGE_POOL_UID is 'a-pool', allowed is none without FORGE_WORKER_VERSION_ID."
    )
    assert refusal(FORGE_WORKER_VERSION_ID="rm452vxk") == (
        "FORGE_WORKER_VERSION_ID is 'rm452vxk', allowed is none without FORGE_POOL_UID."
    )
    assert refusal(FORGE_POOL_UID="a pool", FORGE_WORKER_VERSION_ID="rm452vxk").startswith(
        "FORGE_POOL_UID is 'a pool', allowed is 1 to 128 characters of"
    )
    assert refusal(FORGE_POOL_UID="a-pool", FORGE_WORKER_VERSION_ID="v3").startswith(
        "FORGE_WORKER_VERSION_ID is 'v3', allowed is 8 characters of"
    )


@pytest.mark.parametrize(
    "key", [*(key for key in KNOWN if "TEST" not in key), "JOBS_DATA_DIR", "JOBS_CONFIG_DIR"]
)
def test_an_empty_variable_is_a_mistake_and_not_the_default(key: str) -> None:
    assert refusal(**{key: " "}) == f"{key} is ' ', allowed is a value; leave it unset for the default."


@pytest.mark.parametrize("key", [*KNOWN, "JOBS_DATA_DIR", "JOBS_CONFIG_DIR"])
@given(garbage=st.text(min_size=1))
@example(garbage="78")
def test_whatever_a_variable_says_is_taken_or_refused_in_one_line(key: str, garbage: str) -> None:
    if "\0" in garbage and key.startswith("JOBS_"):
        return  # no process can have such a variable
    # long enough beside every heartbeat, so that only what is tried can be wrong
    said = {"FORGE_STALE_SECONDS": "86400", key: garbage}
    try:
        load(**said)
    except InvalidSetting as error:
        assert error.key == key
        assert "\n" not in str(error)


def test_a_slow_heartbeat_needs_a_longer_stale_time() -> None:
    said = refusal(FORGE_HEARTBEAT_SECONDS="15")
    assert said.startswith("FORGE_STALE_SECONDS is 30 when it is not set, allowed is more than twice")
    assert load(FORGE_HEARTBEAT_SECONDS="15", FORGE_STALE_SECONDS="31").stale == timedelta(seconds=31)


def test_a_password_is_never_shown() -> None:
    settings = load(FORGE_DATABASE_URL="postgresql://ann:secret@db/shop")

    assert "secret" not in repr(settings)
    assert "secret" not in str(settings)
    for garbage in (
        "postgresql://ann:secret@@db",
        "postgres:/ann:secret@db",
        "ann:secret@db/shop",
        "x password=secret",
        "secret",  # the wrong key of a Secret
    ):
        said = refusal(FORGE_DATABASE_URL=garbage)
        assert "secret" not in said
        assert "***" in said


def test_a_variable_that_means_nothing_is_warned_of_with_the_nearest_that_does() -> None:
    settings = load(FORGE_QUEUE="mail", FORGE_XYZZY="1", OTHER="x")
    assert settings.unknown == (
        "FORGE_QUEUE is not a setting; did you mean FORGE_QUEUES?",
        "FORGE_XYZZY is not a setting.",
    )


def test_the_variables_that_kubernetes_adds_for_a_service_are_no_mistake() -> None:
    settings = load(
        FORGE_SERVICE_HOST="10.0.0.1",
        FORGE_JOBS_SERVICE_PORT_HTTP="80",
        FORGE_JOBS_PORT="tcp://10.0.0.1:80",
        FORGE_JOBS_PORT_80_TCP_ADDR="10.0.0.1",
    )
    assert settings.unknown == ()


def test_the_data_folder_may_be_said(tmp_path: Path) -> None:
    assert load(JOBS_DATA_DIR="/var/lib/jobs").database_url == "sqlite:////var/lib/jobs/queue.sqlite"
    assert load(tmp_path, JOBS_DATA_DIR="data").database_url == f"sqlite:///{tmp_path}/data/queue.sqlite"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for key in ("JOBS_DATA_DIR", "JOBS_CONFIG_DIR"):
        assert refusal(tmp_path, **{key: "file"}) == f"{key} is 'file', allowed is a folder."


def test_a_configuration_file_names_the_database(tmp_path: Path) -> None:
    config = tmp_path / "jobs" / "config"
    config.mkdir(parents=True)
    file = config / "queue_database.toml"
    file.write_text(
        'adapter = "postgres"\ndatabase = "shop"\nusername = "ann"\npassword_env = "DB"\nschema = "mine"'
    )

    settings = load(tmp_path, DB="secret")

    assert settings.database_url == "postgresql://ann:secret@localhost:5432/shop"
    assert settings.database == "postgresql://ann:***@localhost:5432/shop"
    assert settings.storage_options == {"pool_size": 4}
    assert settings.schema == "mine"
    assert load(tmp_path, DB="secret", FORGE_SCHEMA="other").schema == "other"
    assert load(EMPTY, DB="secret", JOBS_CONFIG_DIR=str(config)) == settings


def most_connections(storage: Storage) -> int:
    """Return how many connections a storage opens at most."""
    assert isinstance(storage, PostgresStorage)
    return storage._database._pool_size + OUTSIDE_THE_POOL


def test_whoever_names_the_database_a_process_opens_as_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://db/shop"
    file = tmp_path / "queue_database.toml"
    file.write_text('adapter = "postgres"\ndatabase = "shop"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORGE_DATABASE_URL", raising=False)
    values = yaml.safe_load((ROOT / "charts/forge-jobs/values.yaml").read_text(encoding="utf-8"))

    assert most_connections(Forge().storage) == most_connections(Forge(url).storage) == CONNECTIONS
    assert most_connections(open_storage(url)) == CONNECTIONS
    assert values["workers"]["connections"] == CONNECTIONS
    monkeypatch.setenv("FORGE_DATABASE_URL", url)
    assert most_connections(Forge().storage) == CONNECTIONS

    monkeypatch.setenv("FORGE_MAX_CONNECTIONS", "30")
    assert most_connections(Forge().storage) == most_connections(Forge(url).storage) == 30


def test_a_schema_in_the_file_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "queue_database.toml"
    file.write_text('adapter = "postgres"\ndatabase = "shop"\nschema = "pg_x"')
    assert refusal(tmp_path).startswith(f"schema in {file} is 'pg_x', allowed is a name")


def test_the_url_in_the_environment_comes_before_any_file(tmp_path: Path) -> None:
    (tmp_path / "queue_database.toml").write_text("not even TOML")
    assert load(tmp_path, FORGE_DATABASE_URL="sqlite:///a.sqlite").database_url == "sqlite:///a.sqlite"


def test_how_many_connections_a_process_opens_is_said_for_either_way_to_name_the_database(
    tmp_path: Path,
) -> None:
    (tmp_path / "queue_database.toml").write_text(
        'adapter = "postgres"\ndatabase = "shop"\nmax_connections = 20\n', encoding="utf-8"
    )
    url = {"FORGE_DATABASE_URL": "postgresql://db/shop"}

    assert Settings.load(url, tmp_path).storage_options == {}
    assert Settings.load({**url, "FORGE_MAX_CONNECTIONS": "8"}, tmp_path).storage_options == {"pool_size": 4}
    assert Settings.load({}, tmp_path).storage_options == {"pool_size": 16}
    assert Settings.load({"FORGE_MAX_CONNECTIONS": "8"}, tmp_path).storage_options == {"pool_size": 4}
    with pytest.raises(
        InvalidSetting, match="FORGE_MAX_CONNECTIONS is '3', allowed is a whole number from 5"
    ):
        Settings.load({**url, "FORGE_MAX_CONNECTIONS": "3"}, tmp_path)


def test_a_file_with_the_url_wins_over_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://ann:secret@db/shop\n")

    settings = load(FORGE_DATABASE_URL_FILE=str(file), FORGE_DATABASE_URL="postgresql://ann:old@db/shop")

    assert settings.database_url == "postgresql://ann:secret@db/shop"
    assert settings.database == "postgresql://ann:***@db/shop"
    assert settings.storage_options == {"url_file": file}


@pytest.mark.parametrize(("text", "said"), [(None, "a file that can be read"), ("s3cret", "something else")])
def test_a_file_without_a_url_is_refused_and_not_repeated(
    tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "url"
    if text is not None:
        file.write_text(text)

    sentence = refusal(FORGE_DATABASE_URL_FILE=str(file))

    assert str(file) in sentence
    assert said in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "~\0", "~nobody-of-this-name\0"])
def test_a_home_folder_that_is_not_there_is_a_path_like_any_other(path: str) -> None:
    assert str(expanded(path)) == path
