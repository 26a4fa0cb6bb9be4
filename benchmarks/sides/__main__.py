"""Run one side: `python -m benchmarks.sides forge.work_through '{"url": "...", "jobs": 1000}'`."""

import asyncio
import importlib
import json
import logging
import sys

import uvloop


def main(side: str, arguments: str) -> None:
    """Run the side and print what it returns as JSON."""
    module, name = side.split(".")
    function = getattr(importlib.import_module(f"benchmarks.sides.{module}"), name)
    logging.disable(logging.CRITICAL)  # nobody's logs are measured
    given = json.loads(arguments)
    if asyncio.iscoroutinefunction(function):
        result = uvloop.run(function(**given))
    else:
        result = function(**given)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
