"""The same shop in Flask: no event loop, and the workers are processes of their own.

export FORGE_DATABASE_URL=postgresql://user:password@host/shop
forge-jobs db migrate
forge-jobs queues set mail --concurrency 20
flask --app examples/flask_shop.py run & forge-jobs worker flask_shop:forge --queues mail
"""

from typing import Any

from flask import Flask
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from forge_jobs import Forge

forge = Forge()
engine = create_engine(forge.settings.database_url.replace("postgresql:", "postgresql+psycopg:", 1))
app = Flask(__name__)


@forge.handler(queue="mail")
def confirm(order: int) -> str:  # in a thread of the worker
    with Session(engine) as session, session.begin():
        item = session.scalar(text("SELECT item FROM flask_order WHERE id = :order"), {"order": order})
    return f"order {order}, {item}, is confirmed"


@app.post("/orders/<item>")
def order(item: str) -> tuple[dict[str, Any], int]:
    with Session(engine) as session, session.begin():  # commits both, or neither
        insert = "INSERT INTO flask_order (item) VALUES (:item) RETURNING id"
        number = session.scalar(text(insert), {"item": item})
        job = confirm.options(connection=session).enqueue_sync(order=number)
    return {"order": number, "job": job.id}, 202
