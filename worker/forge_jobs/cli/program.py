"""Find the Forge of a user's program: 'shop:forge' is the name `forge` in the module `shop`."""

import importlib
import importlib.util
import os
import sys
from functools import reduce

from forge_jobs.codecs.plain import type_name
from forge_jobs.errors import InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.error_text import sentence
from forge_jobs.system import place


def load(name: str | None) -> Forge:
    """Return the Forge that 'module:attribute' names, with the working directory on the path.

    Raises InvalidInput when there is none, and when its module cannot be imported: with what it raised, and where.
    """
    module_name, separator, attribute = (name or "").partition(":")
    if (
        not name
        or not separator
        or not all(part.isidentifier() for part in f"{module_name}.{attribute}".split("."))
    ):
        problem = f"The program is {name!r}" if name else "No program is named"
        raise InvalidInput(
            f"{problem}, allowed is module:attribute, like shop:forge, as the argument APP or in FORGE_APP."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return _attribute(_module(module_name), module_name, attribute)


def _module(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _not_imported(name, error) from error
        raise InvalidInput(f"There is no module {name!r} in {os.getcwd()} or on Python's path.") from None
    except (Exception, SystemExit) as error:
        raise _not_imported(name, error) from error


def _not_imported(name: str, error: BaseException) -> InvalidInput:
    """Return what its author needs first: the error, the line of the program, and how to see all of it."""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}: {(error.text or '').strip()}"
    else:
        where = place.raised(error)
    said = sentence(error)
    return InvalidInput(
        f"The program {name!r} cannot be imported: {type_name(error)}: {said}{'' if said.endswith('?') else '.'}\n"
        f"  at {where}\n"
        f"The whole traceback: python -c 'import {name}'"
    )


def _attribute(module: object, module_name: str, attribute: str) -> Forge:
    try:
        forge = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        there = sorted(name for name, value in vars(module).items() if isinstance(value, Forge))
        hint = f"; a Forge there: {', '.join(there)}" if there else ""
        raise InvalidInput(f"Module {module_name!r} has no {attribute!r}{hint}.") from None
    if not isinstance(forge, Forge):
        raise InvalidInput(f"{module_name}:{attribute} is {type(forge).__name__}, allowed is a Forge.")
    return forge
