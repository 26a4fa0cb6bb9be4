"""Other processes, and talking with them."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs.py")


async def start(name: str, *arguments: object) -> Process:
    """Start one of the programs."""
    words = map(str, arguments)
    return await asyncio.create_subprocess_exec(
        sys.executable, PROGRAMS, name, *words, stdin=PIPE, stdout=PIPE
    )


async def heard_from(process: Process) -> str:
    """Return the next line that the process prints."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def answers(process: Process) -> list[int]:
    """Let the process go on; return the numbers that it prints until it ends well."""
    out, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    return [int(word) for word in out.split()]
