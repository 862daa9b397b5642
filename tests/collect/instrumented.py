"""Web services to record with `--instrument`, exactly as their authors would write them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perfkit.capture import Capture

PYTHON = sys.executable
DEADLINE_S = 180.0
"""How long anything may take, on however busy a machine."""

# Each computes in a function that carries the name of its route.
FLASK = """
import sys, time
from flask import Flask
from sqlalchemy import create_engine, text

app = Flask(__name__)
engine = create_engine("sqlite:///" + __file__ + ".db", pool_size=3)

def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def code_of_red():
    compute(0.05)

def code_of_blue():
    compute(0.05)

@app.get("/red/<name>")
def red(name):
    code_of_red()
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT 1")).scalar())

@app.get("/blue/<name>")
def blue(name):
    code_of_blue()
    return name

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
"""

FASTAPI = """
import asyncio, time
from fastapi import FastAPI

app = FastAPI()

def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(100))

def code_of_red():
    compute(0.02)

def code_of_blue():
    compute(0.02)

def code_of_green():
    compute(0.05)

@app.get("/red/{name}")
async def red(name: str):
    for _ in range(3):
        code_of_red()
        await asyncio.sleep(0.02)
    return name

@app.get("/blue/{name}")
async def blue(name: str):
    for _ in range(3):
        code_of_blue()
        await asyncio.sleep(0.02)
    return name

@app.get("/green/{name}")
def green(name: str):
    code_of_green()
    return name
"""

DJANGO_MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
DJANGO_SETTINGS = """
SECRET_KEY = "x"
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["*"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
    "HOST": "127.0.0.1", "PORT": "PORT_OF_THE_DATABASE", "CONN_MAX_AGE": 60,
}}
"""
DJANGO_URLS = """
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def code_of_red():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM generate_series(1, 20000)")
        return cursor.fetchone()[0]

def red(request, name):
    return HttpResponse(str(code_of_red()))

def hold(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(4)")
    return HttpResponse("held")

urlpatterns = [path("red/<str:name>", red), path("hold", hold)]
"""

# A shop that keeps carts in Redis and asks a stock service, which is itself, over HTTP.
REDIS_AND_HTTPX = """
import sys
import httpx, redis
from flask import Flask

app = Flask(__name__)
port = int(sys.argv[1])
carts = redis.Redis(port=int(sys.argv[2]))
client = httpx.Client(base_url=f"http://127.0.0.1:{port}")

@app.get("/cart/<name>")
def cart(name):
    carts.set(f"cart:{name}", 1)
    with carts.pipeline() as together:
        together.get(f"cart:{name}")
        together.ttl(f"cart:{name}")
        together.execute()
    return client.get(f"/stock/{name}").text

@app.get("/stock/<name>")
def stock(name):
    return name

app.run(port=port, threaded=True)
"""

REQUESTS_AND_PSYCOPG2 = """
import sys
import psycopg2, requests
from flask import Flask
from psycopg2.pool import ThreadedConnectionPool

app = Flask(__name__)
port = int(sys.argv[1])
where = {"host": "127.0.0.1", "port": int(sys.argv[2]), "user": "postgres", "dbname": "postgres"}
pool = ThreadedConnectionPool(1, 4, **where)
session = requests.Session()

@app.get("/item/<int:number>")
def item(number):
    connection = pool.getconn()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT %s::int + 1", (number,))
        found = cursor.fetchone()[0]
    pool.putconn(connection)
    return session.get(f"http://127.0.0.1:{port}/stock/{found}").text

@app.get("/stock/<name>")
def stock(name):
    return name

app.run(port=port, threaded=True)
"""

# Queries in a cursor and several at once, and a call by urllib3 itself.
PYMYSQL_AND_URLLIB3 = """
import sys
import pymysql, urllib3
from flask import Flask

app = Flask(__name__)
port = int(sys.argv[1])
where = {"host": "127.0.0.1", "port": int(sys.argv[2]), "user": "shop", "database": "shop"}
pool = urllib3.PoolManager()

connection = pymysql.connect(**where, autocommit=True)
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE item (number INT)")
connection.close()

@app.get("/item/<int:number>")
def item(number):
    connection = pymysql.connect(**where)
    with connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO item VALUES (%s)", [(number,), (number,)])
        cursor.execute("SELECT count(*) FROM item WHERE number = %s", (number,))
        found = cursor.fetchone()[0]
        connection.commit()
    answer = pool.request("GET", f"http://127.0.0.1:{port}/stock/{found}?secret={number}")
    return answer.data

@app.get("/stock/<name>")
def stock(name):
    return name

app.run(port=port, threaded=True)
"""

AIOHTTP_AND_ASYNCPG = """
import sys
import aiohttp, asyncpg
from aiohttp import web

port, database = int(sys.argv[1]), int(sys.argv[2])

async def start(app):
    app["pool"] = await asyncpg.create_pool(
        host="127.0.0.1", port=database, user="postgres", database="postgres", min_size=1
    )
    app["session"] = aiohttp.ClientSession(f"http://127.0.0.1:{port}")
    yield
    await app["session"].close()
    await app["pool"].close()

async def item(request):
    async with request.app["pool"].acquire() as connection:
        number = await connection.fetchval("SELECT $1::int + 1", int(request.match_info["number"]))
    async with request.app["session"].get("/stock") as answer:
        return web.Response(text=f"{number} {await answer.text()}")

async def stock(request):
    return web.Response(text="7")

app = web.Application()
app.cleanup_ctx.append(start)
app.add_routes([web.get("/item/{number}", item), web.get("/stock", stock)])
web.run_app(app, port=port, print=None)
"""

# Tasks in a worker that forks, and a front that sends them; Redis is between.
CELERY_TASKS = """
import os, time
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER"])

def code_of_red():
    end = time.thread_time() + 0.1
    while time.thread_time() < end:
        sum(range(100))

@app.task
def red(number):
    code_of_red()
"""
CELERY_FRONT = """
import os, signal, subprocess, sys
from flask import Flask

os.environ["BROKER"] = f"redis://127.0.0.1:{sys.argv[2]}"
from tasks import red

worker = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "-l", "error"]
)
app = Flask(__name__)

@app.get("/send/<int:number>")
def send(number):
    red.delay(number)
    return "sent"

def end(*_):
    # A worker outlives whoever started it.
    worker.terminate()
    try:
        worker.wait(30)
    except subprocess.TimeoutExpired:
        worker.kill()
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
app.run(port=int(sys.argv[1]), threaded=True)
"""

DJANGO_SQLALCHEMY_URLS = """
import sqlalchemy
from django.http import HttpResponse
from django.urls import path

engine = sqlalchemy.create_engine("sqlite:///shop.db")

def red(request, name):
    with engine.connect() as connection:
        return HttpResponse(str(connection.execute(sqlalchemy.text("SELECT 41 + 1")).scalar()))

urlpatterns = [path("red/<str:name>", red)]
"""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a service answers, with an error or without."""
    try:
        urllib.request.urlopen(url, timeout=30).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def get_all(port: int, paths: list[str], *, clients: int = 4) -> None:
    """Get every path from several clients at once."""
    turn = iter(paths)
    lock = threading.Lock()
    failed: list[BaseException] = []

    def client() -> None:
        while True:
            with lock:
                path = next(turn, None)
            if path is None:
                return
            try:
                url = f"http://127.0.0.1:{port}{path}"
                with urllib.request.urlopen(url, timeout=DEADLINE_S) as reply:
                    reply.read()
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[0]


@contextmanager
def recorded(
    folder: Path, port: int, *command: str, options: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Record a service while the block runs; it answers by then. Yields where the capture is."""
    capture = folder / "service.perfkit"
    log = folder / "log.txt"
    record = [PYTHON, "-m", "perfkit.cli", "record", "--instrument", *options]
    env = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    # Programs that tests start should not compile all of their libraries each time anew.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*record, "-o", str(capture), "--", *command],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(
            lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/none"),
            "the service answers",
        )
        assert process.poll() is None, log.read_text()
        yield capture
        # The exporters send twice a second.
        time.sleep(2)
    finally:
        # Whatever happened: it ends what it started, which a kill would leave behind.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert Capture.open(capture).finished, log.read_text()


# Loses connections of a pool, which the garbage collector brings back: here at the worst moment,
# while the SDK holds the lock of the exemplars of what counts the connections.
LEAKING = """
import gc
from opentelemetry import trace
from opentelemetry.sdk.metrics._internal.exemplar import exemplar_reservoir
from sqlalchemy import create_engine

offer = exemplar_reservoir.ExemplarBucket.offer

def offer_while_collecting(*args, **kwargs):
    gc.collect()
    return offer(*args, **kwargs)

exemplar_reservoir.ExemplarBucket.offer = offer_while_collecting
gc.disable()
engine = create_engine("sqlite:///shop.db", pool_size=3)
for _ in range(20):
    with trace.get_tracer("shop").start_as_current_span("request"):
        engine.connect().close()
        leaked = [engine.connect()]
        leaked.append(leaked)
        del leaked
    gc.collect()
print("ended")
"""
