"""Jobs are done by a program that stays: here this file itself, which could be in any language.

python examples/warm_program.py
"""

import asyncio
import json
import os
import sys

from forge_jobs import Forge, Worker, builtin


def program() -> None:
    """Answer each job, a line of JSON, with a line of JSON."""
    for line in sys.stdin:
        job = json.loads(line)
        text = job["payload"]["text"]
        answer = {"id": job["id"], "status": "ok", "result": {"length": len(text), "pid": os.getpid()}}
        if not text:
            answer = {"id": job["id"], "status": "dead", "message": "there is no text"}
        print(json.dumps(answer), flush=True)


async def main() -> None:
    """Measure two texts in one process."""
    forge = Forge("sqlite://:memory:")
    builtin.register_program(forge, "measure", [sys.executable, __file__, "program"])
    async with forge:
        jobs = [await forge.enqueue("measure", {"text": text}) for text in ("four", "seventy", "")]
        await Worker(forge, queues=["default"]).run(until_empty=True)
        results = [await forge.wait(job) for job in jobs[:2]]
        print([result["length"] for result in results])
        print("processes:", len({result["pid"] for result in results}))
        print((await forge.jobs.get(jobs[2])).error)


if __name__ == "__main__":
    if sys.argv[1:] == ["program"]:
        program()
    else:
        asyncio.run(main())
