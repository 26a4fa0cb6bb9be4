"""A user's program whose jobs are nodes of flows; some of them kill their worker, before, in and after what they do."""

import asyncio
import os
import random
import signal

from forge_jobs import Context, Flow, Forge

forge = Forge()


async def risk(ctx: Context) -> None:
    """Most first attempts go on after a while; some kill their worker instead, at any moment, also while it writes."""
    await asyncio.sleep(random.uniform(0, 0.02))
    if ctx.attempt == 1 and random.random() < 0.04:
        asyncio.get_running_loop().call_later(random.uniform(0, 0.05), os.kill, os.getpid(), signal.SIGKILL)


@forge.handler(max_attempts=None)
async def split(ctx: Context, number: int) -> list[int]:
    await risk(ctx)
    return [number + each for each in range(5)]


@forge.handler(max_attempts=None)
async def double(ctx: Context, number: int) -> int:
    await risk(ctx)
    return 2 * number


@forge.handler(max_attempts=None)
async def total(ctx: Context, numbers: list[int]) -> int:
    await risk(ctx)
    return sum(numbers)


@forge.handler(max_attempts=None)
async def both(ctx: Context, left: int, right: int) -> list[int]:
    await risk(ctx)
    return [left, right]


def flow() -> Flow:
    """Two branches, each of which splits a number, doubles the parts and sums them up; and their join."""
    side = Flow("side").and_then(split).map(double).and_then(total)
    whole = Flow("whole")
    sides = [whole.node(side, name=name) for name in ("left", "right")]
    whole.node(both).depends_on(*sides)
    return whole
