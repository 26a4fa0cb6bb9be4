"""python -m tests.elsewhere.keep, in worker/: the databases of other packages are kept, for the tests of `forge-jobs import`.

Each is filled by the package itself, in the release named here, and written down by pg_dump: installing them takes longer than
all tests of imports. Needs pip, npm, and the network.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from forge_jobs.testing.local_postgres import LocalPostgres, installed_postgres

FOLDER = Path(__file__).parent
PYTHON = ["procrastinate==3.10.0", "psycopg[binary]==3.3.9"]
NODE = ["graphile-worker@0.18.0", "pg@8.23.1"]


def main() -> None:
    """Fill and dump both."""
    with LocalPostgres() as server, tempfile.TemporaryDirectory() as place:
        url = server.url()
        node, python = Path(place) / "node", Path(place) / "python"
        node.mkdir()
        (node / "package.json").write_text('{"private": true}\n')
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *NODE], cwd=node, check=True)
        (node / "fill.mjs").write_text((FOLDER / "fill_graphile.mjs").read_text())
        subprocess.run(["node", "fill.mjs", url], cwd=node, check=True)
        _dump(url, FOLDER / "graphile.sql", "--schema=graphile_worker")
        subprocess.run([sys.executable, "-m", "venv", str(python)], check=True)
        subprocess.run([str(python / "bin" / "pip"), "install", "--quiet", *PYTHON], check=True)
        subprocess.run(
            [str(python / "bin" / "python"), str(FOLDER / "fill_procrastinate.py"), url], check=True
        )
        _dump(url, FOLDER / "procrastinate.sql", "--schema=public")


def _dump(url: str, file: Path, *options: str) -> None:
    command = [
        str(installed_postgres() / "bin" / "pg_dump"),
        "--inserts",
        "--no-owner",
        "--no-privileges",
        *options,
        url,
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kept = [
        line
        for line in text.splitlines()
        if line
        and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config", "CREATE SCHEMA public"))
    ]
    file.write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
