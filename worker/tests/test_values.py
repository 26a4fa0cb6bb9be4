"""Dataclasses whose methods are made when they are first used: what is seen of them is what `dataclasses` makes."""

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import threading
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from forge_jobs.values import dataclass

T = TypeVar("T")


class Root:
    """What both kinds below are."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Kept(Root):
    """One that pickles find here."""

    name: str
    number: int = 3


def declared(name: str = "Order") -> type:
    """Return a class that is not made a dataclass yet."""

    class Order(Root):
        """An order."""

        LARGEST: ClassVar = 9
        name: str
        numbers: list[int] = dataclasses.field(default_factory=list, compare=False)
        price: float = 1.5

        def __post_init__(self) -> None:
            object.__setattr__(self, "price", self.price * 2)

        @property
        def total(self) -> float:
            return self.price * len(self.numbers)

    Order.__name__ = Order.__qualname__ = name
    return Order


def is_made(kind: type) -> bool:
    return isinstance(vars(kind)["__dataclass_fields__"], dict)


@pytest.fixture
def kind() -> Any:
    """A class that nobody has used."""
    return dataclass(frozen=True, slots=True)(declared())


@pytest.fixture
def other() -> Any:
    """The same from `dataclasses`."""
    return dataclasses.dataclass(frozen=True, slots=True)(declared())


def test_the_methods_of_a_class_are_made_with_the_first_of_its_kind(kind: Any) -> None:
    assert not is_made(kind)

    order = kind("a", [1, 2])

    assert is_made(kind)
    assert repr(order) == "Order(name='a', numbers=[1, 2], price=3.0)"
    assert (order.total, kind.LARGEST) == (6.0, 9)


def test_a_value_is_compared_hashed_frozen_and_changed_as_any_dataclass(kind: Any) -> None:
    order = kind("a", price=1.0)

    assert order == kind("a", [7], price=1.0) != kind("b", price=1.0)
    assert hash(order) == hash(kind("a", price=1.0))
    assert order.__eq__(3) is NotImplemented
    assert dataclasses.replace(order, name="b") == kind("b", price=2.0)
    assert dataclasses.asdict(order) == {"name": "a", "numbers": [], "price": 2.0}
    assert copy.deepcopy(order) == copy.copy(order) == order
    assert not hasattr(order, "__dict__")
    for forbidden in (lambda: setattr(order, "name", "b"), lambda: delattr(order, "name")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            forbidden()
    with pytest.raises(TypeError, match=r"Order.__init__\(\) missing 1 required positional argument: 'name'"):
        kind()


@pytest.mark.parametrize("options", [{}, {"eq": False}, {"kw_only": True}], ids=str)
def test_a_class_has_what_dataclasses_gives_it_and_nothing_besides(options: dict[str, bool]) -> None:
    late: Any = dataclass(frozen=True, slots=True, **options)(declared())
    at_once: Any = dataclasses.dataclass(frozen=True, slots=True, **options)(declared())

    late(name="a")

    assert vars(late).keys() == vars(at_once).keys()
    assert late.__slots__ == at_once.__slots__


@pytest.mark.parametrize(
    "asked",
    [
        dataclasses.fields,
        dataclasses.is_dataclass,
        inspect.signature,
        lambda kind: kind.__match_args__,
        lambda kind: kind.__dataclass_params__,
        lambda kind: [*kind.__dataclass_fields__],
        inspect.get_annotations,
    ],
)
def test_what_is_asked_of_a_class_is_answered_before_there_is_any_of_its_kind(
    kind: Any, other: Any, asked: Any
) -> None:
    assert str(asked(kind)) == str(asked(other))


def test_a_pattern_takes_a_value_apart(kind: Any) -> None:
    match kind("a"):
        case kind(name, numbers=[]):
            assert name == "a"
        case _:
            raise AssertionError


def test_a_dataclass_of_a_dataclass_has_the_fields_of_both(kind: Any) -> None:
    for make in (dataclass, dataclasses.dataclass):

        @make(frozen=True, slots=True)
        class Express(kind):  # type: ignore[misc]
            days: int = 1

        express = Express("a", days=2)
        assert [field.name for field in dataclasses.fields(express)] == ["name", "numbers", "price", "days"]
        assert Express.__slots__ == ("days",)
        assert express != kind("a")


def test_a_generic_class_may_be_one() -> None:
    @dataclass(frozen=True, slots=True)
    class Box(Generic[T]):
        content: T

    assert Box(3) == Box(3) != Box("3")


def test_a_class_that_may_change_is_a_dataclass_from_the_beginning() -> None:
    kind: Any = dataclass(slots=True)(declared())

    assert is_made(kind)
    order = kind("a")
    order.name = "b"
    assert order.name == "b"


def test_a_pickle_is_read_by_a_process_that_has_made_none() -> None:
    program = (
        "import pickle, sys; from tests.test_values import Kept, is_made; before = is_made(Kept); "
        "print(before, pickle.loads(sys.stdin.buffer.read()))"
    )

    read = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(Kept("a")),
        capture_output=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert read.stdout == b"False Kept(name='a', number=3)\n", read.stderr


def test_threads_that_make_the_first_at_once_get_the_same(kind: Any) -> None:
    together, orders = threading.Barrier(8), []

    def make() -> None:
        together.wait()
        orders.append(kind("a"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(orders)) == 1


def test_a_program_that_imports_all_events_makes_none_of_their_methods() -> None:
    program = (
        "from forge_jobs.telemetry import events; from tests.test_values import is_made; "
        "kinds = {getattr(events, name) for name in events.__all__} - {events.Event}; "
        "print(len(kinds) > 50, [kind for kind in kinds if is_made(kind)])"
    )

    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert said.stdout == "True []\n", said.stderr
