from pathlib import Path

import pytest

from forge_jobs.errors import InvalidSetting
from forge_jobs.settings.database_file import FILE_NAME, ConfiguredDatabase, find, load

POSTGRES = 'adapter = "postgres"\ndatabase = "shop"\n'


def read(folder: Path, text: str, **environ: str) -> ConfiguredDatabase:
    file = folder / FILE_NAME
    file.write_text(text)
    return load(file, environ, folder / "data" / "queue.sqlite")


def refusal(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(InvalidSetting) as caught:
        read(folder, text, **environ)
    return str(caught.value).replace(str(folder), "")


def test_sqlite_needs_no_more_than_its_name(tmp_path: Path) -> None:
    assert read(tmp_path, 'adapter = "sqlite"') == ConfiguredDatabase(
        f"sqlite:///{tmp_path}/data/queue.sqlite", {"synchronous": "normal"}
    )


@pytest.mark.parametrize("path", ["/var/lib/jobs.sqlite", "jobs.sqlite"])
def test_a_relative_path_is_relative_to_the_file(tmp_path: Path, path: str) -> None:
    database = read(tmp_path, f'adapter = "sqlite"\npath = "{path}"\nsynchronous = "full"')
    assert database == ConfiguredDatabase(f"sqlite:///{tmp_path / path}", {"synchronous": "full"})


def test_postgres_needs_a_database(tmp_path: Path) -> None:
    assert read(tmp_path, POSTGRES) == ConfiguredDatabase(
        "postgresql://localhost:5432/shop", {"pool_size": 4}
    )
    assert refusal(tmp_path, 'adapter = "postgres"').startswith(
        "database in /queue_database.toml is missing, allowed"
    )


def test_postgres_may_say_everything(tmp_path: Path) -> None:
    database = read(
        tmp_path,
        POSTGRES + 'host = "db.internal"\nport = 5433\nusername = "tech_admin"\npassword = "p@ss/word"\n'
        'max_connections = 10\nschema = "jobs"\nsslmode = "verify-full"',
    )
    url = "postgresql://tech_admin:p%40ss%2Fword@db.internal:5433/shop?sslmode=verify-full"
    assert database == ConfiguredDatabase(url, {"pool_size": 6}, "jobs")
    assert "p%40ss" not in repr(database)


def test_a_password_may_come_from_a_variable(tmp_path: Path) -> None:
    database = read(
        tmp_path, POSTGRES + 'username = "ann"\npassword_env = "DB_PASSWORD"', DB_PASSWORD="secret"
    )
    assert database.url == "postgresql://ann:secret@localhost:5432/shop"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'adapter in /queue_database.toml is missing, allowed is "sqlite" or "postgres".'),
        ('adapter = "mysql"', "adapter in /queue_database.toml is 'mysql', allowed is"),
        ("adapter = 5", "adapter in /queue_database.toml is 5, allowed is"),
        ("adapter = [", "/queue_database.toml is not TOML (at end of document), allowed is TOML."),
        (
            'adapter = "sqlite"\nhost = "db"',
            "host in /queue_database.toml is an unknown key, allowed is for sqlite: adapter, path, synchronous.",
        ),
        (
            POSTGRES + 'pasword = "secret"',
            "pasword in /queue_database.toml is an unknown key, allowed is for postgres",
        ),
        ('adapter = "sqlite"\npath = ""', "path in /queue_database.toml is '', allowed is a path."),
        (
            'adapter = "sqlite"\npath = "."',
            "path in /queue_database.toml is '.', allowed is a file, not a folder.",
        ),
        ('adapter = "sqlite"\nsynchronous = "off"', 'is \'off\', allowed is "normal" or "full".'),
        (POSTGRES + 'host = "a b"', "host in /queue_database.toml is 'a b', allowed is"),
        (
            POSTGRES + "port = 0",
            "port in /queue_database.toml is 0, allowed is a whole number from 1 to 65535.",
        ),
        (POSTGRES + 'port = "5432"', "port in /queue_database.toml is '5432', allowed is"),
        (POSTGRES + "port = true", "port in /queue_database.toml is True, allowed is"),
        (POSTGRES + "max_connections = 3", "is 3, allowed is a whole number from 5 to 10000."),
        (POSTGRES + 'sslmode = "on"', "sslmode in /queue_database.toml is 'on', allowed is"),
        (POSTGRES + 'sslmode = ""', "sslmode in /queue_database.toml is '', allowed is"),
        (POSTGRES + "username = 5", "username in /queue_database.toml is 5, allowed is the name of a user."),
        (
            'adapter = "postgres"\ndatabase = "1shop"',
            "database in /queue_database.toml is '1shop', allowed is",
        ),
        (
            POSTGRES + 'password_env = "DB"',
            "is 'DB', allowed is the name of an environment variable that is set.",
        ),
    ],
)
def test_every_mistake_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    said = refusal(tmp_path, text)
    assert says in said
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize(
    "text",
    [
        POSTGRES + 'password = ["secret"]',
        POSTGRES + 'password = "secret" "x"',
        POSTGRES + 'password = "secret\\u0000"',
        POSTGRES + 'password = "secret"\npassword_env = "DB"',
        POSTGRES + 'password_env = "secret"',
        POSTGRES + 'host = "postgresql://ann:secret@db/shop"',
        'adapter = "postgresql://ann:secret@db/shop"',
        'adapter = "postgres"\ndatabase = "ann:secret@db"',
    ],
)
def test_no_mistake_makes_a_password_seen(tmp_path: Path, text: str) -> None:
    assert "secret" not in refusal(tmp_path, text, DB="secret")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    binary = tmp_path / FILE_NAME
    binary.write_bytes(b"\xff")
    with pytest.raises(InvalidSetting, match=r"is not UTF-8, allowed is TOML in UTF-8\.$"):
        load(binary, {}, tmp_path)
    with pytest.raises(InvalidSetting, match=r"is not readable \(No such file or directory\), allowed is"):
        load(tmp_path / "gone.toml", {}, tmp_path)


def test_the_configuration_folder_comes_before_the_working_directory(tmp_path: Path) -> None:
    config, cwd = tmp_path / "config", tmp_path / "cwd"
    for folder in (config, cwd):
        folder.mkdir()
        (folder / FILE_NAME).touch()

    assert find(config, cwd) == config / FILE_NAME
    assert find(tmp_path / "nowhere", cwd) == cwd / FILE_NAME


def test_the_file_is_found_four_levels_up_and_no_further(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    (deep := tmp_path / "1" / "2" / "3" / "4" / "5").mkdir(parents=True)

    assert find(tmp_path / "config", deep.parent) == tmp_path / FILE_NAME
    assert find(tmp_path / "config", deep) is None


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert find(tmp_path, tmp_path) is None
