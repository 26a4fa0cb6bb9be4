"""The autoscaler on seven loads: jobs wait about as long as they should, and the pods do not flutter.

Pods start in 20 s, have 10 slots, the target is 30 s, and the operator looks every 5 s.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.world import World, autoscaled

START_OF_A_POD = 20.0
LOOK = 5.0


@dataclass(frozen=True)
class Bounds:
    """What a load must not exceed."""

    p50: float
    p95: float
    longest: float
    changes: int
    most_pods: int
    pods_at_the_end: int = 20


def asleep(most: int) -> World:
    """A pool that has gone to sleep."""
    spec = {"workers": autoscaled(slots=10, scaling={"maxReplicas": most})}
    world = World(spec, pod_start=START_OF_A_POD).run(420, step=5)
    assert world.deployment("1").replicas == 0
    world.most_pods = world.scales = 0
    return world


def play(world: World, arrivals: Callable[[float], float], seconds: float, length: float) -> None:
    begin, due = world.time, 0.0
    while world.time < begin + length:
        due += arrivals(world.time - begin)
        world.enqueue(int(due), seconds)
        due -= int(due)
        if (world.time - begin) % LOOK == 0:
            world.look()
        world.step(1)


def late(world: World, share: float) -> float:
    waits = sorted(world.waits)
    return waits[min(len(waits) - 1, int(share * len(waits)))]


LOADS = {
    "steady, short": (lambda t: 10.0, 2, 1200, 20, Bounds(2, 10, 35, 10, 6)),
    "steady, longer": (lambda t: 10.0, 10, 1200, 20, Bounds(2, 35, 65, 12, 20)),
    "burst": (lambda t: 100.0 if t < 30 else 0.0, 2, 1200, 20, Bounds(60, 65, 65, 10, 20, 0)),
    "sparse": (lambda t: 1 / 60, 2, 1800, 20, Bounds(2, 25, 25, 7, 1)),
    "square wave": (
        lambda t: 20.0 if (t // 600) % 2 == 0 else 2.0,
        5,
        2400,
        20,
        Bounds(2, 30, 60, 45, 20),
    ),
    "then silence": (lambda t: 5.0 if t < 300 else 0.0, 2, 1200, 20, Bounds(2, 30, 30, 8, 4, 0)),
    "many, large": (lambda t: 60.0, 1.5, 900, 50, Bounds(2, 35, 65, 14, 50)),
}


@pytest.mark.parametrize("name", LOADS)
def test_jobs_start_about_as_soon_as_they_should(name: str) -> None:
    arrivals, seconds, length, most, bounds = LOADS[name]
    world = asleep(most)

    play(world, arrivals, seconds, length)

    assert late(world, 0.5) <= bounds.p50
    assert late(world, 0.95) <= bounds.p95
    assert max(world.waits) <= bounds.longest
    assert world.scales <= bounds.changes
    assert world.most_pods <= bounds.most_pods
    assert world.deployment("1").replicas <= bounds.pods_at_the_end
    assert world.handed_back == 0
