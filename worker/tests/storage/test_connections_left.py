"""Connections that are left: a number on a server, nothing to say in a file."""

from forge_jobs.storage.interface.storage import Storage


async def test_only_a_server_has_connections_to_run_out_of(storage: Storage) -> None:
    left = await storage.connections_left()

    assert left is None if not storage.shared else left is not None and left > 0
