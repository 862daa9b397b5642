"""Each planted problem shows in the spans, goes away when mended, and changes no answer."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy import Engine, QueuePool, create_engine, inspect, text

from perfkit.demo.database import CITATIONS_INDEX, DatabaseError, connect
from perfkit.demo.plugins import ToolCall, Transcript
from perfkit.demo.problems import NAMES, PROBLEMS, select
from perfkit.demo.tools import MOST_CITED, TOOLS

from .harness import Gateway

ARGUMENTS = {
    "database-query": {"slower_than_ms": 500},
    "check-stock": {"sku": "sku-3"},
    "list-orders": {"user_id": 5},
    "search-documents": {"topic": "topic-9"},
    "plan-trip": {"city": "Lisbon"},
    "render-report": {"title": "Sales"},
    "weather": {"city": "Quito"},
    "reserve-voucher": {"campaign": "spring"},
    "current-time": {},
}


def overlap(spans: list[ReadableSpan]) -> bool:
    """Return whether any two of the spans, in order of their start, ran at the same time."""
    return any(
        (later.start_time or 0) < (earlier.end_time or 0)
        for earlier, later in itertools.pairwise(spans)
    )


@pytest.mark.parametrize("name", TOOLS)
def test_mending_changes_no_answer(
    gateways: Callable[[frozenset[str]], Gateway], name: str
) -> None:
    replies = [
        gateways(problems).call(name, **ARGUMENTS[name])
        for problems in (frozenset(NAMES), frozenset[str]())
    ]
    assert not any(reply["result"]["isError"] for reply in replies)
    if name not in ("current-time", "reserve-voucher"):
        assert replies[0] == replies[1]


def test_cache_runs_the_same_statement_for_the_same_arguments_again(
    gateway: Gateway, mended: Gateway
) -> None:
    for each, statements in ((mended, 1), (gateway, 3)):
        before = len(each.statements("usage_events"))
        for _ in range(3):
            each.call("database-query", slower_than_ms=123)
        assert len(each.statements("usage_events")) - before == statements
        calls = each.spans("tools/call database-query")[-3:]
        assert len({call.attributes["gen_ai.tool.call.arguments"] for call in calls}) == 1


def test_n_plus_one_queries_once_for_each_order(
    gateways: Callable[[frozenset[str]], Gateway],
) -> None:
    orders = 50
    for problems, statements in ((select(only="n_plus_one"), orders), (frozenset[str](), 1)):
        each = gateways(problems)
        each.call("list-orders", user_id=5)
        assert len(each.statements("orders")) == 1
        items = each.statements("order_items")
        assert len(items) == statements
        assert len(set(items)) == 1


@pytest.mark.parametrize(
    ("tool", "problem", "together"),
    [
        ("check-stock", "pool", 4),
        ("plan-trip", "serial", 1),
        ("render-report", "blocking", 4),
        ("reserve-voucher", "lock", 3),
    ],
)
def test_upstream_calls_run_side_by_side_only_when_mended(
    gateways: Callable[[frozenset[str]], Gateway],
    tool: str,
    problem: str,
    together: int,
) -> None:
    for problems, side_by_side in ((select(only=problem), False), (frozenset[str](), True)):
        each = gateways(problems)
        replies = each.call_together(together, tool, **ARGUMENTS[tool])
        assert not any(reply["result"]["isError"] for reply in replies)
        upstream = [span for span in each.spans("GET") if span.kind.name == "CLIENT"]
        assert len(upstream) == (4 if tool == "plan-trip" else together)
        assert overlap(upstream) is side_by_side


def test_pool_makes_callers_wait_in_connect_spans(
    gateways: Callable[[frozenset[str]], Gateway],
) -> None:
    each = gateways(select(only="pool"))
    each.call_together(4, "check-stock", sku="sku-3")
    holding = each.spans("GET")
    waiting = each.spans("connect")
    assert len(waiting) == 4
    # Whoever comes second connects only when the first has its answer from upstream.
    assert sum((span.end_time or 0) > (holding[0].end_time or 0) for span in waiting) == 3


@pytest.mark.parametrize("mend", ["none", "pool"])
def test_pool_size(tmp_path, mend: str) -> None:
    database = connect(f"sqlite:///{tmp_path}/x.db", select(mend=mend), workers=8)
    sizes = [engine.pool.size() for engine in (database.store, database.inventory)]  # type: ignore[attr-defined]
    assert isinstance(database.inventory.pool, QueuePool)
    assert sizes == [8, 8 if mend == "pool" else 1]
    database.dispose()


def plan_of(engine: Engine) -> str:
    query = text(f"EXPLAIN QUERY PLAN {MOST_CITED.text}")
    with engine.connect() as connection:
        return "\n".join(row.detail for row in connection.execute(query, {"topic": "topic-1"}))


def test_index_is_used_when_there_is_one(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    for problems, step in (
        (select(), "SCAN c"),
        (select(mend="index"), f"SEARCH c USING COVERING INDEX {CITATIONS_INDEX} (document_id=?)"),
        (select(), "SCAN c"),
    ):
        connect(url, problems, workers=2).dispose()
        assert step in plan_of(create_engine(url)).splitlines()


def test_a_database_of_somebody_else_is_left_alone(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id integer)"))
    with pytest.raises(DatabaseError, match="already has tables named orders"):
        connect(url, select(), workers=2)
    assert inspect(engine).get_table_names() == ["orders"]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sqlite:////nowhere/x.db", "unable to open database file"),
        ("no url", "Could not parse"),
        ("nosuch://localhost/x", "Can't load plugin"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(url: str, complaint: str) -> None:
    with pytest.raises(DatabaseError, match=complaint) as caught:
        connect(url, select(), workers=2)
    assert "\n" not in str(caught.value)


def test_hot_code_builds_a_tls_context_for_each_call(
    gateways: Callable[[frozenset[str]], Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    create = ssl.create_default_context

    def counted(*arguments: object, **options: object) -> ssl.SSLContext:
        built.append(options)
        return create(*arguments, **options)

    for problems, contexts in ((select(only="hot_code"), 3), (frozenset[str](), 0)):
        each = gateways(problems)
        with monkeypatch.context() as patched:
            patched.setattr(ssl, "create_default_context", counted)
            for _ in range(3):
                each.call("weather", city="Quito")
        assert len(built) == contexts
        built.clear()


def test_lock_waits_in_a_span_of_its_own(gateway: Gateway) -> None:
    gateway.call_together(3, "reserve-voucher", campaign="spring")
    waits = gateway.spans("acquire voucher lock")
    assert len(waits) == 3
    # On a busy machine a worker thread may be done in time to serve the next call, too.
    assert len({span.attributes["thread.id"] for span in waits}) > 1


def test_voucher_numbers_never_repeat(mended: Gateway) -> None:
    replies = mended.call_together(8, "reserve-voucher", campaign="spring")
    assert len({str(reply["result"]["content"]) for reply in replies}) == 8


@pytest.mark.parametrize(("mend", "kept"), [("none", 50), ("leak", Transcript.KEPT)])
def test_leak_keeps_every_transcript(mend: str, kept: int) -> None:
    transcript = Transcript(select(mend=mend))
    for number in range(50):
        transcript.after(ToolCall("weather", "agent", {"city": str(number)}, result="{}"))
    assert len(transcript.entries) == kept
    assert b'"49"' in transcript.entries[-1]


def test_every_problem_is_told_in_the_table() -> None:
    assert len(set(NAMES)) == len(PROBLEMS) == 9
    for problem in PROBLEMS:
        tools = {name for name in problem.affects if not name.startswith(("GET ", "all"))}
        assert tools <= TOOLS.keys()
        assert problem.found_by


def test_select() -> None:
    everything = frozenset(NAMES)
    assert select() == select(mend="none") == select(mend="") == everything
    assert select(mend="all") == frozenset()
    assert select(mend="cache, pool") == everything - {"cache", "pool"}
    assert select(only="leak") == select(mend="none", only="leak") == {"leak"}


@pytest.mark.parametrize(
    ("mend", "only"), [("cash", None), (None, "cash"), ("cache", "pool"), ("cache,", None)]
)
def test_select_refuses_what_it_does_not_know(mend: str | None, only: str | None) -> None:
    with pytest.raises(ValueError, match=r"there is no problem|exclude each other"):
        select(mend, only)
