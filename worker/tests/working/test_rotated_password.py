"""A password is changed under a running worker, which gets its URL from a file."""

from pathlib import Path
from urllib.parse import urlsplit

from forge_jobs import Forge
from tests.copied_postgres import CopiedPostgres
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import fleet


async def test_a_long_job_outlives_the_rotation_of_the_password_and_the_worker_goes_on(
    ledger: Ledger, tmp_path: Path
) -> None:
    with CopiedPostgres(settings={"fsync": "off"}, port=0) as server:
        host = urlsplit(server.url()).netloc.rpartition("@")[2]
        server.execute("CREATE ROLE shop LOGIN SUPERUSER PASSWORD 'first'")
        file = tmp_path / "url"
        file.write_text(f"postgresql://shop:first@{host}/postgres")
        async with Forge(server.url()) as forge, fleet("unused", ledger, tmp_path) as workers:
            worker = await workers.start(
                FORGE_DATABASE_URL="postgresql://shop:stale@nowhere/postgres",
                FORGE_DATABASE_URL_FILE=str(file),
                FORGE_STALE_SECONDS="20",
            )
            long = await forge.enqueue("nap", {"seconds": 6})
            await eventually(lambda: ledger.of("start"))

            server.execute("ALTER USER shop PASSWORD 'second'")
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
            await eventually(lambda: "password authentication failed" in workers.log())
            file.write_text(f"postgresql://shop:second@{host}/postgres")

            next_one = await forge.enqueue("nap")
            await forge.wait(next_one, timeout=60)
            await forge.wait(long, timeout=60)

        assert {(line.job_id, line.attempt) for line in ledger.of("start")} == {
            (long.id, 1),
            (next_one.id, 1),
        }
        assert {line.process for line in ledger} == {worker.pid}
        assert "second" not in workers.log()
        assert "first" not in workers.log()
        assert f"the database answers at the new one: postgresql://shop:***@{host}/postgres" in workers.log()


async def test_a_worker_that_starts_before_its_file_says_the_new_password_waits_for_it(
    ledger: Ledger, tmp_path: Path
) -> None:
    with CopiedPostgres(settings={"fsync": "off"}, port=0) as server:
        host = urlsplit(server.url()).netloc.rpartition("@")[2]
        server.execute("CREATE ROLE shop LOGIN SUPERUSER PASSWORD 'second'")
        file = tmp_path / "url"
        file.write_text(f"postgresql://shop:first@{host}/postgres")
        async with Forge(server.url()) as forge, fleet("unused", ledger, tmp_path) as workers:
            worker = await workers.start(FORGE_DATABASE_URL_FILE=str(file))
            await eventually(lambda: "password authentication failed" in workers.log())

            file.write_text(f"postgresql://shop:second@{host}/postgres")

            await forge.wait(await forge.enqueue("nap"), timeout=60)
            assert worker.returncode is None
        assert "Traceback" not in workers.log()
