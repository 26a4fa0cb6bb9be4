"""An order, step by step: each step is a job that gets what the one before it returned."""

import asyncio
from dataclasses import dataclass

from forge_jobs import Flow, Forge, Worker

forge = Forge()

OUT_OF_STOCK = {"WIDGET-C", "WIDGET-D"}


@dataclass
class Order:
    id: int
    email: str
    items: list[str]
    cents: int


@dataclass
class StockedItem:
    order_id: int
    sku: str


@dataclass
class Dispatched:
    email: str
    tracking: str
    items: int


@forge.handler
async def charge(order: Order) -> Order:
    print(f"[{order.id}] charges ${order.cents / 100:.2f} for {len(order.items)} items")
    return order


@forge.handler
async def split(order: Order) -> list[StockedItem]:
    return [StockedItem(order.id, sku) for sku in order.items]


@forge.handler
async def check_stock(item: StockedItem) -> StockedItem | None:
    if item.sku not in OUT_OF_STOCK:
        return item
    print(f"[{item.order_id}] {item.sku} is out of stock")
    return None


@forge.handler
async def confirm(items: list[StockedItem]) -> list[StockedItem]:
    if not items:
        raise ValueError("no item is available to fulfil this order")
    print(f"[{items[0].order_id}] {len(items)} items confirmed in stock")
    return items


@forge.handler
async def dispatch(items: list[StockedItem], email: str) -> Dispatched:
    sent = Dispatched(email, f"TRACK-{items[0].order_id}", len(items))
    print(f"[{items[0].order_id}] dispatched {sent.items} items: {sent.tracking}")
    return sent


@forge.handler
async def notify(sent: Dispatched) -> str:
    print(f"emails {sent.email}: your {sent.items} items are on the way")
    return sent.tracking


def fulfilment(email: str) -> Flow:
    return (
        Flow("order-fulfilment")
        .and_then(charge)
        .and_then(split)
        .filter_map(check_stock)
        .and_then(confirm)
        .delay_for(0.5)
        .and_then(dispatch, email=email)
        .and_then(notify)
    )


async def main() -> None:
    order = Order(1001, "alice@example.com", ["WIDGET-A", "WIDGET-B", "WIDGET-C"], 7499)
    async with forge:
        started = await fulfilment(order.email).start(order)
        worker = Worker(forge, queues=["default"])
        working = asyncio.create_task(worker.run())
        print(await forge.flows.wait(started, timeout=30))
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(main())
