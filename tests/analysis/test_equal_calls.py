from __future__ import annotations

import json
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.build import S, analyse

ASKED = st.tuples(
    st.integers(0, 20),
    st.integers(0, 8),
    st.sampled_from(["/a/1", "/a/2", "/b", "SELECT 1 FROM t WHERE x = 1", "SELECT 2 FROM u"]),
    st.sampled_from([1.0, 2.0]),
)


@given(st.lists(ASKED, max_size=10))
def test_equals_the_slow_count(asked: list[tuple[int, int, str, float]]) -> None:
    spans = [S(1, 0, 99, kind="server", endpoint="GET /")]
    by_text = defaultdict[str, list[tuple[int, int, float]]](list)
    for number, (start, length, text, weight) in enumerate(asked, 2):
        columns = {"kind": "client", "adjusted_count": weight}
        if text.startswith("/"):
            columns |= {"http_method": "GET", "attributes": json.dumps({"url.path": text})}
        else:
            columns |= {"db_system": "sqlite", "db_statement": text}
        spans.append(S(number, start, start + length, 1, **columns))
        by_text[text].append((start, start + length, weight))
    expected = [0.0, 0.0, 0.0]
    for intervals in by_text.values():
        intervals.sort(key=lambda one: one[0])
        for place, (start, end, weight) in enumerate(intervals[1:], 1):
            expected[0] += weight
            expected[1] += weight * (end - start)
            reached = max(one[1] for one in intervals[:place])
            expected[2] += weight * (start < reached)
    found = analyse(spans).frame("equal_calls")
    names = ("repeated_calls", "repeat_ns", "overlapped_calls")
    # Which of two that begin together is the repetition is not said; times then may differ.
    ties = any(len({one[0] for one in group}) < len(group) for group in by_text.values())
    for name, value in zip(names, expected, strict=True):
        if not ties:
            assert (found[name].sum() or 0) == value, name


def test_ids_in_addresses_are_different_texts_of_one_target() -> None:
    spans = [S(1, 0, 99, kind="server", endpoint="GET /")]
    for number, path in enumerate(["/a/1", "/a/2", "/a/1"], 2):
        url = json.dumps({"url.path": path})
        spans.append(
            S(number, number, number + 1, 1, kind="client", http_method="GET", attributes=url)
        )
    (found,) = analyse(spans).frame("equal_calls").to_dicts()
    assert (found["target"], found["calls"], found["distinct_texts"]) == ("GET /a/{id}", 3, 2)
    assert (found["repeated_calls"], found["repeat_ns"], found["requests"]) == (1, 1, 1)


def _names_asked(requests: list[list[str]]) -> set[str]:
    spans, number = [], 0
    for at, paths in enumerate(requests):
        number += 1
        entry = number
        spans.append(S(entry, 100 * at, 100 * at + 99, kind="server", endpoint="GET /"))
        for path in paths:
            number += 1
            url = json.dumps({"url.path": path})
            columns = {"kind": "client", "http_method": "GET", "attributes": url}
            spans.append(S(number, 100 * at + 1, 100 * at + 2, entry, **columns))
    return set(analyse(spans).frame("equal_calls")["target"])


def test_names_in_addresses_are_one_target_when_each_request_asks_for_one() -> None:
    one_each = [[f"/rates/{name}"] for name in ["eur", "usd", "gbp", "chf", "jpy"] * 2]
    assert _names_asked(one_each) == {"GET /rates/{name}"}


def test_parts_that_a_request_asks_for_together_are_different_things() -> None:
    parts = ["/api/users", "/api/carts", "/api/prices", "/api/taxes", "/api/stock"]
    assert _names_asked([parts, parts]) == {f"GET {part}" for part in parts}


def test_a_few_names_and_services_side_by_side_are_different_things() -> None:
    few = [[f"/rates/{name}"] for name in ["eur", "usd"] * 4]
    assert _names_asked(few) == {"GET /rates/eur", "GET /rates/usd"}
    services = [[f"/{name}"] for name in ["users", "carts", "prices", "taxes", "stock"] * 2]
    assert "GET /{name}" not in _names_asked(services)


def test_posts_are_no_questions() -> None:
    spans = [S(1, 0, 99, kind="server", endpoint="GET /")]
    spans += [S(n, n, n + 1, 1, kind="client", name="POST /a", http_method="POST") for n in (2, 3)]
    assert analyse(spans).frame("equal_calls").is_empty()
