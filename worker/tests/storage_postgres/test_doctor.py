"""What the doctor finds on a server: rights, LISTEN, connections."""

import asyncpg

from forge_jobs import Forge
from forge_jobs.client.doctor import examine
from forge_jobs.model.checkup import Checkup, Health
from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.postgres import PostgresStorage
from tests.storage_postgres.conftest import ROLES, as_role
from tests.storage_postgres.test_rights import bare, grant, owner, tables, url  # noqa: F401  fixtures


async def examined(url: str, role: str) -> dict[str, Checkup]:  # noqa: F811
    return {checkup.name: checkup for checkup in await examine(Forge(as_role(url, role)))}


async def test_of_the_owner_of_the_tables_everything_is_fine(tables, url):  # noqa: F811
    checkups = await examined(url, "owner")

    assert [*checkups] == [
        *("database", "migrations", "clock", "connections", "pooler", "listen", "rights", "workers")
    ]
    assert {checkup.health for checkup in checkups.values()} == {Health.FINE}


async def test_a_role_that_only_enqueues_is_told_what_a_worker_needs(tables, url):  # noqa: F811
    await grant(tables, Purpose.ENQUEUER)

    rights = (await examined(url, ROLES[Purpose.ENQUEUER]))["rights"]

    assert rights.health is Health.POOR
    assert rights.found.startswith("those of an enqueuer, without SELECT on claimed")
    assert rights.remedy is not None and "forge-jobs db grants ROLE --as worker" in rights.remedy


async def test_a_role_that_has_no_connection_left_is_told_of_its_limit(owner, bare):  # noqa: F811
    role = ROLES[Purpose.WORKER]
    await (admin := await asyncpg.connect(bare)).execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    try:
        [checkup] = (await examined(bare, role)).values()
    finally:
        await admin.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        await admin.close()

    assert (checkup.name, checkup.health) == ("database", Health.WRONG)
    assert f'too many connections for role "{role}"' in checkup.found
    assert checkup.remedy is not None and "CONNECTION LIMIT of the role" in checkup.remedy


async def test_a_role_that_may_do_nothing_is_wrong(owner, bare):  # noqa: F811
    checkups = await examined(bare, ROLES[Purpose.READER])

    assert checkups["migrations"].health is Health.WRONG


async def test_each_role_lacks_nothing_of_what_it_was_granted(tables, url):  # noqa: F811
    for purpose, role in ROLES.items():
        storage = PostgresStorage(as_role(url, role))
        assert "SELECT on queue" in await storage.schema.lacking(purpose)

        await grant(tables, purpose)

        assert await storage.schema.lacking(purpose) == []
        assert purpose is Purpose.WORKER or "DELETE on claimed" in await storage.schema.lacking(
            Purpose.WORKER
        )
