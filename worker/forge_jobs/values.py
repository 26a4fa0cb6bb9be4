"""Frozen dataclasses that cost a program little which imports them and makes none of them.

To write and compile the methods of a dataclass takes half a millisecond, and a command or a worker that starts imports
two hundred, of which it makes thirty. Here a class gets its methods when the first of its kind is made, or when
somebody asks for its fields.
"""

import dataclasses
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, get_origin

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        *, frozen: bool = False, slots: bool = False, eq: bool = True, kw_only: bool = False
    ) -> Callable[[type], type]:
        """As `dataclasses.dataclass`, for a class that is frozen and has slots."""
        options = {"frozen": frozen, "slots": slots, "eq": eq, "kw_only": kw_only}
        if not (frozen and slots):  # an instance may be filled without a call that could be heard
            return dataclasses.dataclass(**options)
        return lambda declared: Unmade(declared, options).kind


METHODS = (
    *("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"),
    *("__getstate__", "__setstate__"),
)
ATTRIBUTES = ("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__signature__")


class Unmade:
    """A dataclass, `kind`, with something in place of each method and attribute that makes all of them when it is used."""

    def __init__(self, declared: type, options: dict[str, bool]) -> None:
        self._declared, self._options = declared, options
        self._space = {
            name: value for name, value in vars(declared).items() if name not in ("__dict__", "__weakref__")
        }
        annotations = inspect.get_annotations(declared)
        names = [name for name, annotation in annotations.items() if not _is_of_class(annotation)]
        inherited = {slot for base in declared.__mro__[1:] for slot in vars(base).get("__slots__", ())}
        space = {name: value for name, value in self._space.items() if name not in names}
        space |= {name: _method(self, name) for name in METHODS if name not in space}
        space |= {name: _Attribute(self, name) for name in ATTRIBUTES}
        space["__slots__"] = tuple(name for name in names if name not in inherited)
        self.kind = self._class(space)

    def make(self) -> None:
        """The class has what `dataclasses.dataclass` gives it. Two threads may do this at once: both give it the same."""
        made = vars(dataclasses.dataclass(**self._options)(self._class(dict(self._space))))
        for name in (*METHODS, "__replace__", *ATTRIBUTES):
            if name in made:
                setattr(self.kind, name, made[name])
            elif name in vars(self.kind):
                with suppress(AttributeError):  # the other thread was faster
                    delattr(self.kind, name)

    def _class(self, space: dict[str, Any]) -> type:
        declared = self._declared
        kind: type = type(declared)(declared.__name__, declared.__bases__, space)
        kind.__qualname__ = declared.__qualname__
        return kind


def _is_of_class(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _method(unmade: Unmade, name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        unmade.make()
        return getattr(unmade.kind, name)(self, *args, **kwargs)

    return method


class _Attribute:
    """An attribute of a class that is made when it is asked for, with the class."""

    def __init__(self, unmade: Unmade, name: str) -> None:
        self._unmade, self._name = unmade, name

    def __get__(self, instance: object, owner: type) -> Any:
        self._unmade.make()
        return getattr(owner, self._name)
