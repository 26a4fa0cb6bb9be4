"""Pictures are drawn, made small and put on one sheet, by processes that use all of the machine. Ctrl-C ends it, and the next call goes on.

python examples/images.py pictures    # draws 6 and writes pictures/sheet.png; a number after the folder: so many
"""

import asyncio
import os
import struct
import sys
import zlib
from pathlib import Path

from forge_jobs import Context, Flow, Forge, Worker

WIDTH, HEIGHT, FACTOR = 360, 240, 4  # of a picture, in pixels, and how much smaller it is on the sheet
QUEUE = "images"
FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures").absolute()

forge = Forge(f"sqlite:///{FOLDER}/jobs.sqlite")


@forge.handler(queue=QUEUE, executor="process")
def draw(ctx: Context, number: int) -> str:
    file = FOLDER / f"{number}.grey"
    first = ctx.state or 0  # rows that an earlier attempt has drawn
    with file.open("r+b" if first else "wb") as drawn:
        drawn.seek(first * WIDTH)
        for row in range(first, HEIGHT):
            drawn.write(bytes(darkness(column, row, 1 / 1.5**number) for column in range(WIDTH)))
            if row % 40 == 39:
                drawn.flush()
                ctx.save(row + 1)
                ctx.progress((row + 1) / HEIGHT, f"row {row + 1} of {HEIGHT}")
    return file.name


@forge.handler(queue=QUEUE, executor="process")
def shrink(name: str) -> str:
    grey = (FOLDER / name).read_bytes()
    small = bytes(
        sum(sum(grey[y * WIDTH + x : y * WIDTH + x + FACTOR]) for y in range(top, top + FACTOR)) // FACTOR**2
        for top in range(0, HEIGHT, FACTOR)
        for x in range(0, WIDTH, FACTOR)
    )
    file = (FOLDER / name).with_suffix(".small")
    file.write_bytes(small)
    return file.name


@forge.handler(queue=QUEUE)
def sheet(names: list[str]) -> str:
    """One below the other, as a PNG."""
    width, height = WIDTH // FACTOR, HEIGHT // FACTOR * len(names)
    grey = b"".join((FOLDER / name).read_bytes() for name in names)
    lines = b"".join(b"\0" + grey[start : start + width] for start in range(0, len(grey), width))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    file = FOLDER / "sheet.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return str(file)


def darkness(column: int, row: int, scale: float) -> int:
    """How soon a point near the edge of the Mandelbrot set runs away."""
    point = complex(-0.745 + (column / WIDTH - 0.5) * 3 * scale, 0.113 + (row / HEIGHT - 0.5) * 2 * scale)
    z, steps = 0j, 0
    while abs(z) < 2 and steps < 60:
        z, steps = z * z + point, steps + 1
    return 255 - steps * 4


def pictures(count: int) -> Flow:
    flow = Flow("pictures")
    drawn = [flow.node(draw, name=f"draw-{number}", number=number) for number in range(count)]
    small = [flow.node(shrink, name=f"shrink-{number}").depends_on(node) for number, node in enumerate(drawn)]
    flow.node(sheet).collects(*small)
    return flow


async def tell(flow: int) -> None:
    """Say how far it is, until cancelled."""
    said = ""
    while True:
        status = await forge.flows.get(flow)
        running = [job for job in await forge.jobs.list(state="in_progress") if job.progress is not None]
        now = f"{status.done} of {status.nodes} steps" + "".join(
            f", {job.progress.note}" for job in running if job.progress
        )
        if now != said:
            print(now, flush=True)
        said = now
        await asyncio.sleep(0.2)


async def main(count: int) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with forge:
        begun = await forge.flows.list(state="running")
        flow = begun[0].id if begun else (await pictures(count).start()).id
        telling = asyncio.create_task(tell(flow))
        await Worker(forge, queues=[QUEUE], concurrency=os.cpu_count() or 1).run(until_empty=True)
        telling.cancel()
        print((await forge.flows.wait(flow))["sheet"])


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[2]) if len(sys.argv) > 2 else 6))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.")
        sys.exit(130)
