"""An installation whose database Secret is missing, or lacks a key, is refused before anything is made."""

import pytest

from tests.e2e.cluster import Cluster, CommandFailed

CHART = "charts/forge-jobs"
URL = "--from-literal=url=postgresql://there/forge"
PASSWORD = "--from-literal=password=secret"


@pytest.mark.parametrize(
    ("values", "lacking", "whole"),
    [
        ("database.existingSecret=mine", PASSWORD, [URL]),
        ("postgres.enabled=true,postgres.existingSecret=mine", PASSWORD, [PASSWORD, URL]),
    ],
    ids=["database", "try-out PostgreSQL"],
)
def test_a_secret_that_is_missing_or_lacks_a_key_is_told(
    space: Cluster, values: str, lacking: str, whole: list[str]
) -> None:
    def install() -> str:
        # The definitions belong to the release that is there already.
        words = ("install", "another", CHART, "--dry-run=server", "--set", f"crds.install=false,{values}")
        return space.helm(*words)

    with pytest.raises(CommandFailed, match="There is no Secret mine in the namespace"):
        install()
    space.kubectl("create", "secret", "generic", "mine", lacking)
    with pytest.raises(CommandFailed, match=r"The Secret mine in the namespace \S+ has no key url"):
        install()
    space.kubectl("delete", "secret", "mine")
    space.kubectl("create", "secret", "generic", "mine", *whole)
    install()
