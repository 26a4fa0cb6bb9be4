"""A container engine: what builds and runs images, as any user has it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE = 300  # seconds for one command; a safeguard, nothing is measured

# Inside of another container, only lower limits may be set, and the older runtime knows the older cgroups.
NESTED = ("--runtime", "runc", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
CANDIDATES = (("docker", ()), ("podman", ()), ("podman", NESTED))


class NoEngine(Exception):
    """Nothing here builds or runs images; the message says what was tried."""


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    # podman on a kernel without its default finds images where buildah put them only when told so
    environment = {"STORAGE_DRIVER": "overlay", **os.environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment)


def build(tag: str, folder: Path = ROOT, file: str = "Dockerfile") -> None:
    """The image `tag` is there. Raises NoEngine when nothing builds images here."""
    try:
        _run(["docker", "version"])
    except FileNotFoundError:
        raise NoEngine("there is no docker") from None
    ended = _run(["docker", "build", "-f", str(folder / file), "-t", tag, str(folder)])
    if "Cannot connect to the Docker daemon" in ended.stderr:
        raise NoEngine("no docker daemon answers")
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runs in the background."""

    engine: "Engine"
    id: str

    def stop(self, grace: int) -> int:
        """Send SIGTERM, and SIGKILL after `grace` seconds; return the exit code."""
        self.engine.do("stop", "-t", str(grace), self.id)
        return int(self.engine.do("wait", self.id))

    def python(self, program: str) -> str:
        """Return what a program prints that is run beside the container's own."""
        return self.engine.do("exec", self.id, "python", "-c", program)

    def log(self) -> str:
        """Return what it wrote."""
        ended = _run([self.engine.command, "logs", self.id])
        return ended.stdout + ended.stderr


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs images as it is told: with these variables, as this user, with this root filesystem."""

    command: str
    options: tuple[str, ...]

    def run(
        self, image: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a container to its end."""
        return _run([*self._start(options, env), "--rm", image, *arguments])

    def python(self, image: str, program: str, *options: str) -> str:
        """Return what a program prints, run by the image's Python."""
        ended = self.run(image, "-c", program, options=["--entrypoint", "python", *options])
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    @contextlib.contextmanager
    def running(
        self, image: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Iterator[Container]:
        """A container runs meanwhile."""
        ended = _run([*self._start(options, env), "-d", image, *arguments])
        assert ended.returncode == 0, ended.stderr
        container = Container(self, ended.stdout.strip())
        try:
            yield container
        finally:
            _run([self.command, "rm", "-f", container.id])

    def do(self, *arguments: str) -> str:
        """Return what a command of the engine prints."""
        ended = _run([self.command, *arguments])
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def does_as_told(self, image: str) -> bool:
        """Whether options are honoured: there are stand-ins for docker that leave some out."""
        program = "import os; print(os.environ.get('PROBE'), os.getpid(), os.access('/', os.W_OK))"
        options = ["--entrypoint", "python", "--user", "0:0", "--read-only"]
        try:
            ended = self.run(image, "-c", program, options=options, env={"PROBE": "yes"})
        except FileNotFoundError:
            return False
        return ended.stdout.strip() == "yes 1 False"

    def _start(self, options: Sequence[str], env: Mapping[str, str] | None) -> list[str]:
        variables = [part for name, value in (env or {}).items() for part in ("-e", f"{name}={value}")]
        # The host's network: a test's database and web server listen on 127.0.0.1 only.
        return [self.command, "run", "--network", "host", *self.options, *variables, *options]


def find(image: str) -> Engine:
    """Return an engine that runs `image` as it is told. Raises NoEngine."""
    for command, options in CANDIDATES:
        engine = Engine(command, options)
        if engine.does_as_told(image):
            return engine
    raise NoEngine("neither docker nor podman runs a container with the options that it is given")
