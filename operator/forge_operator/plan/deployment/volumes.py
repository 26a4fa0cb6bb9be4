"""The volumes of a worker: the file with the database's URL, and a place for temporary files."""

from collections.abc import Mapping
from typing import Any

from forge_operator.state.settings import OperatorSettings

TEMPORARY = "forge-tmp"

DATABASE = "forge-database"
DATABASE_FOLDER = "/run/forge-jobs/database"
DATABASE_FILE = "url"
"""The database's URL as a file of the mounted Secret: a variable stays as it was when the container started."""


def database_volume(settings: OperatorSettings) -> dict[str, Any]:
    """Return the volume with the file that holds the database's URL, of which the kubelet writes each new version."""
    secret = {
        "secretName": settings.database.name,
        "items": [{"key": settings.database.key, "path": DATABASE_FILE}],
        # What is missing is said by the container, which takes the variable from the same place:
        # of a volume that cannot be mounted a pod's status says nothing.
        "optional": True,
    }
    return {"name": DATABASE, "secret": secret}


def mounts(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the container's mounts, with the database's URL, and one at /tmp if nothing else can be written to."""
    database = {"name": DATABASE, "mountPath": DATABASE_FOLDER, "readOnly": True}
    given = [*(container.get("volumeMounts") or []), database]
    is_read_only = container["securityContext"]["readOnlyRootFilesystem"]
    if not is_read_only or any(mount.get("mountPath") == "/tmp" for mount in given):
        return given
    return [*given, {"name": TEMPORARY, "mountPath": "/tmp"}]
