"""Shell scripts that start processes of their own, and say which: to see what becomes of them."""

from pathlib import Path

from tests.working.eventually import eventually


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and not buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Family:
    """A script's processes, which it writes down in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def script(self, text: str) -> list[str]:
        """Return the argv of a shell that runs `text`, where `note NAME ID` writes down a process."""
        return ["sh", "-c", f'note() {{ echo "$2" > {self.folder}/$1.pid; }}\n{text}']

    def three_generations(self) -> list[str]:
        """Return the argv of a process with a child and a grandchild, which all wait, and hold the pipes."""
        return self.script(
            "echo begun\n"
            "note parent $$\n"
            "sh -c 'sleep 1000 & echo $! > \"$0/grandchild.pid\"; wait' " + str(self.folder) + " &\n"
            "note child $!\n"
            "wait"
        )

    def deaf(self) -> list[str]:
        """Return the argv of a process with a child, which both ignore SIGTERM."""
        return self.script(
            "trap '' TERM\n"
            "note parent $$\n"
            "(trap '' TERM; while :; do sleep 0.1; done) &\n"
            "note child $!\n"
            "while :; do sleep 0.1; done"
        )

    async def pids(self, count: int) -> list[int]:
        """Return the ids once there are so many."""
        return await eventually(lambda: found if len(found := self._written()) == count else None)

    def _written(self) -> list[int]:
        return [int(text) for path in self.folder.glob("*.pid") if (text := path.read_text()).endswith("\n")]
