"""Whether this process only imports the program of its parent, and has not begun with what it is for."""

import sys

from forge_jobs.errors import InvalidInput


def require_begun() -> None:
    """Raise InvalidInput while this process, which multiprocessing or a worker started, imports its parent's program."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and getattr(process.current_process(), "_inheriting", False):
        raise InvalidInput(
            "The program opens its Forge while a child process imports it; "
            "allowed is to open it below if __name__ == '__main__'."
        )
