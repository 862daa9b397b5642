"""What was planted into a capture is in no part of a redacted report, nor are secrets in any."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from perfkit.capture import Capture, CaptureWriter
from perfkit.cli.report import command
from perfkit.errors import UsageError
from perfkit.redaction import Rules, redacted
from perfkit.stacks import Frame
from tests.report.build import MS, START, S

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.c2lnbmF0dXJlLW9mLXRoaXM"
SECRETS = {
    "bearer": ("Authorization: Bearer 8f3k2j5h7g9d1s4a6q0w", "8f3k2j5h7g9d1s4a6q0w"),
    "jwt": (f"token was {JWT}", JWT),
    "aws": ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
    "url": ("postgresql://shop:Tr0ub4dor@db/orders", "Tr0ub4dor"),
    "pair": ("api_key=9d8f7a6b5c4e3d2f1a0b", "9d8f7a6b5c4e3d2f1a0b"),
    "password": ("password: correcthorse", "correcthorse"),
    "github": ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz012345"),
}
PRIVATE = {
    "customer": "Jane Quimby",
    "mail": "jane.quimby@example.org",
    "number": "4711081599",
    "literal": "Quimbystreet 7",
    "host": "db-eu-17.corp.internal",
    "machine": "buildbox-042",
    "folder": "/home/quimby/secretproject",
    "argument": "flights to Zanzibar",
    "message": "no row for Quimbyton",
    "address": "10.77.88.99",
    "tenant": "acme-quimby",
    "order": "815081508150",
    "comment": "asked by quimby-laptop",
}


def plant(path: Path) -> Path:
    """Write a capture with something private, and every secret, in each place that has text."""
    p = PRIVATE
    attributes = {
        "customer.name": p["customer"],
        "customer.number": int(p["number"]),
        "nested": {"deep": [p["mail"]]},
        "client.address": p["address"],
        "url.full": f"https://{p['host']}/users/{p['order']}?who={p['tenant']}",
        **{f"note.{name}": text for name, (text, _) in SECRETS.items()},
    }
    spans = []
    for number in range(60):
        begin = START + number * 500 * MS
        common = {"trace_hi": 1, "trace_lo": number + 1, "status": "unset", "adjusted_count": 1.0}
        spans.append(
            common
            | {
                "span_id": 2 * number + 1,
                "kind": "server",
                "service": "shop",
                "instance": p["machine"],
                "name": f"GET /users/{p['order']}",
                "endpoint": "GET /users/{id}",
                "start_ns": begin,
                "duration_ns": 200 * MS,
                "tool": "search",
                "tool_arguments": json.dumps({"query": p["argument"]}),
                "status": "error" if number % 5 == 0 else "ok",
                "status_message": p["message"],
                "attributes": json.dumps(attributes),
                "resource": json.dumps({"host.name": p["machine"], "tenant": p["tenant"]}),
                "pid": 77,
                "thread_id": 5,
            }
        )
        spans.append(
            common
            | {
                "span_id": 2 * number + 2,
                "parent_id": 2 * number + 1,
                "kind": "client",
                "service": "shop",
                "name": "SELECT",
                "start_ns": begin + 10 * MS,
                "duration_ns": 150 * MS,
                "peer": f"{p['host']}:5432",
                "db_system": "mysql",
                "db_statement": f"SELECT id FROM citizens WHERE street = '{p['literal']}' AND "
                f'mail = "{p["mail"]}" AND id = {p["order"]} /* {p["comment"]} */ LIMIT 10',
                "pid": 77,
                "thread_id": 5,
            }
        )
    events = [
        {
            "trace_hi": 1,
            "trace_lo": number + 1,
            "span_id": 2 * number + 1,
            "ts_ns": START + number * 500 * MS + 20 * MS,
            "name": "exception",
            "attributes": json.dumps(
                {
                    "exception.type": "LookupError",
                    "exception.message": p["message"],
                    "exception.stacktrace": f'File "{p["folder"]}/shop/app.py", line 3',
                }
            ),
        }
        for number in range(60)
    ]
    with CaptureWriter(path, command=["perfkit", "record", "--", p["folder"]]) as writer:
        writer.info.host = p["machine"]
        writer.info.sources.append({"name": "py-spy", "program": f"{p['folder']}/run.py"})
        writer.note(f"{p['folder']}/x.json was taken on {p['machine']}")
        writer.lose("spans", 1, f"the disk of {p['machine']} was full")
        writer.append("spans", _columns(spans))
        writer.append("span_events", _columns(events))
        stack = writer.stacks.intern((Frame("handle", f"{p['folder']}/shop/app.py", 40),))
        writer.append(
            "samples",
            {
                "ts_ns": [START + at * 100 * MS for at in range(200)],
                "duration_ns": [10 * MS] * 200,
                "count": [1] * 200,
                "pid": [77] * 200,
                "tid": [5] * 200,
                "stack_id": [stack] * 200,
                "state": ["running"] * 200,
            },
        )
        writer.append(
            "metrics",
            {
                "ts_ns": [START + at * S for at in range(30)],
                "name": ["queue.length"] * 30,
                "unit": ["1"] * 30,
                "value": [float(at * at % 13) for at in range(30)],
                "kind": ["gauge"] * 30,
                "instance": [p["machine"]] * 30,
                "attributes": [json.dumps({"tenant": p["tenant"]})] * 30,
            },
        )
    return path


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        key: [row.get(key) for row in rows] for key in dict.fromkeys(k for r in rows for k in r)
    }


def decoded(path: Path, *options: str) -> str:
    """Return all text of a report: the page, and what its packed block holds."""
    target = path.with_suffix(".html")
    arguments = [str(path), "-o", str(target), "--title", "shop", *options]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "warning" not in done.stderr
    html = target.read_text("utf-8")
    block = re.search(r'id="perfkit-data">([^<]+)<', html)
    assert block is not None
    return html + gzip.decompress(base64.b64decode(block[1])).decode("utf-8", "replace")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("redaction") / "shop.perfkit")


@pytest.fixture(scope="module")
def plain(planted: Path) -> str:
    return decoded(planted)


@pytest.fixture(scope="module")
def hidden(planted: Path) -> str:
    return decoded(planted, "--redact")


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_in_no_report(plain: str, hidden: str, name: str) -> None:
    assert SECRETS[name][1] not in plain
    assert SECRETS[name][1] not in hidden


@pytest.mark.parametrize("name", sorted(set(PRIVATE) - {"comment"}))
def test_what_is_private_is_in_a_plain_report(plain: str, name: str) -> None:
    # Or the next test could not fail.
    assert PRIVATE[name] in plain


@pytest.mark.parametrize("name", PRIVATE)
def test_what_is_private_is_in_no_redacted_report(hidden: str, name: str) -> None:
    assert PRIVATE[name] not in hidden
    assert "uimby" not in hidden


def test_what_tells_where_it_is_slow_stays(hidden: str) -> None:
    for name in (
        "GET /users/{id}",
        "citizens",
        "handle",
        "app.py",
        "search",
        "host-1",
    ):
        assert name in hidden


def test_attributes_can_be_kept_and_patterns_hidden(planted: Path) -> None:
    text = decoded(
        planted, "--redact", "--redact-keep", "customer.*", "--redact-pattern", "citize[n]s"
    )
    assert PRIVATE["customer"] in text
    assert PRIVATE["mail"] not in text
    assert "citizens" not in text


def test_equal_values_stay_equal(planted: Path) -> None:
    capture = redacted(Capture.open(planted), Rules(), key=b"k")
    before = Capture.open(planted).table("spans").collect()
    after = capture.table("spans").collect()
    for column in ("db_statement", "attributes", "peer", "tool_arguments", "name"):
        assert after[column].n_unique() == before[column].n_unique()
    assert after.drop("attributes").schema == before.drop("attributes").schema
    same = ("span_id", "start_ns", "duration_ns", "service", "endpoint", "pid")
    assert after.select(same).equals(before.select(same))


@pytest.mark.parametrize(
    ("system", "statement", "gone", "stays"),
    [
        (
            "postgresql",
            "SELECT \"Name\" FROM t WHERE a = 'it''s me'",
            ["me'"],
            ['"Name"', "FROM t"],
        ),
        ("mysql", 'SELECT a FROM t WHERE b = "Somebody"', ["Somebody"], ["SELECT a FROM t"]),
        ("postgresql", "SELECT $tag$me and you$tag$", ["me and you"], ["SELECT"]),
        ("sqlite", "SELECT 1 WHERE a='unfinished", ["unfinished"], ["SELECT"]),
        (None, "select a from t1 where b=-12.5e3 limit 20", ["12.5"], ["t1", "limit 20"]),
        ("redis", "SET user:7733 Somebody", ["7733", "Somebody"], ["SET"]),
        (
            "mongodb",
            '{"find": "people", "filter": {"name": "Somebody"}}',
            ["people", "Somebody"],
            [],
        ),
        ("sqlite", "SELECT a FROM t WHERE b = ? AND c = :name", [], ["b = ? AND c = :name"]),
        ("postgresql", "SELECT a FROM t WHERE b = $1", [], ["b = $1"]),
    ],
)
def test_queries_lose_their_values(
    tmp_path: Path, system: str | None, statement: str, gone: list[str], stays: list[str]
) -> None:
    with CaptureWriter(tmp_path / "a.perfkit") as writer:
        span = {"span_id": [1], "trace_hi": [1], "trace_lo": [1], "start_ns": [START]}
        writer.append("spans", span | {"db_system": [system], "db_statement": [statement]})
    capture = redacted(Capture.open(tmp_path / "a.perfkit"), Rules())
    (found,) = capture.table("spans").collect()["db_statement"]
    assert not [text for text in gone if text in found]
    assert not [text for text in stays if text not in found]


def test_two_redactions_cannot_be_matched(planted: Path) -> None:
    one, other = (
        redacted(Capture.open(planted), Rules()).table("spans").select("tool_arguments").collect()
        for _ in range(2)
    )
    assert not one.equals(other)


def test_a_broken_pattern_is_refused(planted: Path) -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        redacted(Capture.open(planted), Rules(patterns=("(",)))


@pytest.mark.parametrize("options", [("--redact-keep", "a"), ("--redact", "--engine", "shards")])
def test_options_that_do_not_go_together_are_refused(planted: Path, options: Any) -> None:
    done = CliRunner().invoke(command, [str(planted), *options])
    assert isinstance(done.exception, UsageError)


def test_empty_tables_stay_empty(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "e.perfkit"):
        pass
    capture = redacted(Capture.open(tmp_path / "e.perfkit"), Rules())
    assert capture.table("spans").select(pl.len()).collect().item() == 0
