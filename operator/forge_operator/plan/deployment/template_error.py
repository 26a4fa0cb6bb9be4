"""What of a user's pod template no manifest can be made with."""

from collections.abc import Mapping
from typing import Any

from forge_operator.specs.section import wrong

OBJECTS = ("env", "ports", "volumeMounts")
"""Parts of a container that are read or added to here: lists of objects."""

WORDS = ("command", "args")
"""Those that are lists of texts."""


def template_error(template: Mapping[str, Any]) -> str | None:
    """Return one sentence naming the first part of the template with which no manifest can be made; None when there is none.

    The definition leaves all but a few fields of a template to the API server, which judges what
    is made of it: what is read or added to here has to be of the right form before that.
    """
    spec = template["spec"]
    path = "spec.workers.template.spec"
    lists = {f"{path}.{name}": spec.get(name) for name in ("volumes", "initContainers")}
    objects = {f"{path}.securityContext": spec.get("securityContext")}
    words: dict[str, Any] = {}
    for name in ("containers", "initContainers"):
        containers = spec.get(name) or ()
        for number, container in enumerate(containers if is_list_of_objects(containers) else ()):
            at = f"{path}.{name}[{number}]"
            lists |= {f"{at}.{part}": container.get(part) for part in OBJECTS}
            words |= {f"{at}.{part}": container.get(part) for part in WORDS}
            objects[f"{at}.securityContext"] = container.get("securityContext")
    for at, value in lists.items():
        if value is not None and not is_list_of_objects(value):
            return str(wrong(at, value, "a list of objects"))
    for at, value in words.items():
        if value is not None and not isinstance(value, list | tuple):
            return str(wrong(at, value, "a list of texts"))
    for at, value in objects.items():
        if value is not None and not isinstance(value, Mapping):
            return str(wrong(at, value, "an object"))
    return None


def is_list_of_objects(value: object) -> bool:
    """Whether the value is a list of which every item is an object."""
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)
