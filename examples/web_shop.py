"""A shop in FastAPI: an order and its job are one transaction, and a worker runs beside the requests.

FORGE_DATABASE_URL=postgresql://user:password@host/shop uvicorn --app-dir examples web_shop:app
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from forge_jobs import Forge, JobNotFound, Worker

forge = Forge()
engine = create_async_engine(forge.settings.database_url.replace("postgresql:", "postgresql+asyncpg:", 1))
sessions = async_sessionmaker(engine)


@forge.handler(queue="mail", max_attempts=5)
async def confirm(order: int) -> str:
    async with sessions.begin() as session:  # of its own: that of the request is closed by now
        confirmed = "UPDATE web_order SET confirmed = true WHERE id = :order RETURNING item"
        item = await session.scalar(text(confirmed), {"order": order})
    return f"order {order}, {item}, is confirmed"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with forge, asyncio.TaskGroup() as beside:  # what fails beside ends the program, and is not missed
        await make_table()
        worker = Worker(forge, queues=["mail"], grace=20)
        beside.create_task(worker.run())
        yield
        worker.stop()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def make_table() -> None:
    columns = "id bigint GENERATED ALWAYS AS IDENTITY, item text, confirmed boolean DEFAULT false"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE IF NOT EXISTS web_order ({columns})"))


async def request_session() -> AsyncIterator[AsyncSession]:
    async with sessions.begin() as session:
        yield session


Session = Annotated[AsyncSession, Depends(request_session, scope="function")]  # commits before the response


@app.post("/orders", status_code=202)
async def order(item: str, session: Session) -> dict[str, int]:
    number = await session.scalar(
        text("INSERT INTO web_order (item) VALUES (:item) RETURNING id"), {"item": item}
    )
    job = await confirm.options(connection=session, key=f"order:{number}").enqueue(order=number)
    if item == "a bike":
        raise HTTPException(409, "out of stock")  # rolls back both
    return {"order": number, "job": job.id}


@app.get("/jobs/{job_id}")
async def job(job_id: int) -> dict[str, Any]:
    try:
        found = await forge.jobs.get(job_id)
    except JobNotFound as error:
        raise HTTPException(404, str(error)) from error
    return {"state": found.state, "result": await forge.wait(job_id) if found.state == "done" else None}
