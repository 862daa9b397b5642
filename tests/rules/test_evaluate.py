"""Running rules: findings, what is not applicable, what breaks, and the saving by replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit.analysis.replay import mends
from perfkit.analysis.replay.edits import scaled
from perfkit.rules import evaluate, impact, score, software
from perfkit.rules.fixed import FixedTables, check
from perfkit.rules.load import load_rule
from perfkit.rules.model import Finding, Outcome, Rule
from perfkit.sql.execute import Limits
from tests.analysis.replays import saved_ratio
from tests.rules.rule_text import RULE, changed, write


def rows(*values: tuple[str, float]) -> dict[str, list[dict[str, Any]]]:
    return {"metric_stats": [{"name": name, "mean": mean} for name, mean in values]}


def outcome(rule: Rule, tables: FixedTables, **options: Any) -> Outcome:
    (result,) = evaluate.run([rule], tables, **options)
    return result


def test_a_finding_says_all_that_its_rule_says(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    result = outcome(rule, FixedTables(rows(("a", 12e6), ("b", 6e6), ("c", 1e6))))
    assert result.state == "found"
    first, second = result.findings
    assert (first.severity, second.severity) == ("high", "low")
    assert first.title == "Look at a"
    assert first.message == "a takes 12 ms, more than 5 ms."
    assert first.risk == "24 ms"
    assert first.key == {"name": "a"}
    assert first.fix["settings"] == [
        {"software": "Python", "name": "speed", "value": "24 ms"},
        {"software": "Redis", "name": "speed", "value": "1"},
    ]
    assert first.fix["verify"] == "mean: below 5 ms"
    assert first.impact_high_ratio is None
    assert first.confidence == 0.9
    assert first.evidence == [{"name": "a", "mean": 12e6, "twice": 24e6}]
    assert first.references == [{"title": "Docs", "url": "https://example.org/"}]


def test_a_number_of_endpoints_names_none(tmp_path: Path) -> None:
    query = changed("SELECT name, mean", "SELECT name, mean, 'GET /a' AS endpoint, 2 AS endpoints")
    rule = load_rule(write(tmp_path, query))
    found = outcome(rule, FixedTables(rows(("a", 12e6)))).findings
    assert found[0].scope["endpoints"] == ["GET /a"]


def test_quiet_is_not_the_same_as_not_applicable(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    assert outcome(rule, FixedTables(rows(("a", 1e6)))).state == "quiet"
    empty = outcome(rule, FixedTables({}))
    assert (empty.state, empty.reason) == ("not_applicable", "the capture holds no metrics")
    unsaid = outcome(rule, FixedTables({"metric_stats": [{"name": "a"}]}))
    assert unsaid.state == "not_applicable"
    assert unsaid.reason == "the capture never says mean (table metric_stats)"


def test_a_rule_that_breaks_leaves_the_others_alone(tmp_path: Path) -> None:
    broken = changed("mean * 2", "LOWER(mean)")
    good, bad = load_rule(write(tmp_path)), load_rule(write(tmp_path / "bad", broken))
    results = evaluate.run([bad, good], FixedTables(rows(("a", 12e6))))
    assert [one.state for one in results] == ["found", "error"]
    assert results[1].reason
    assert "\n" not in results[1].reason


def test_missing_and_odd_values_do_no_harm(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    result = outcome(rule, FixedTables(rows(("a", float("inf")), ("b", float("nan")))))
    assert result.state == "found"
    for finding in result.findings:
        assert "inf" not in finding.message
        assert "nan" not in finding.message
        assert finding.evidence[0]["mean"] is None


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = "{mean:number} <script>alert(1)</script> \x1b[2J'; DROP TABLE x --"
    rule = load_rule(write(tmp_path))
    (finding,) = outcome(rule, FixedTables(rows((name, 6e6)))).findings
    assert finding.title == "Look at " + name.replace("\x1b", "").replace("  ", " ")
    assert finding.key == {"name": name}


def test_only_settings_of_software_that_was_seen(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    seen = {**rows(("a", 12e6)), "spans": [{"span_id": 1, "start_ns": 0, "db_system": "redis"}]}
    (with_redis,) = outcome(rule, FixedTables(seen)).findings
    assert [one["software"] for one in with_redis.fix["settings"]] == ["Python", "Redis"]
    text = changed("software: Python, name", "software: Django, name")
    rule = load_rule(write(tmp_path / "django", text))
    (without_django,) = outcome(rule, FixedTables(seen)).findings
    assert [one["software"] for one in without_django.fix["settings"]] == ["Redis"]


def test_software_is_recognised_by_what_it_leaves() -> None:
    tables = FixedTables(
        {
            "spans": [
                {"span_id": 1, "start_ns": 0, "scope": "opentelemetry.instrumentation.sqlalchemy"},
                {"span_id": 2, "start_ns": 0, "db_system": "postgresql", "service": "shop"},
                {"span_id": 3, "start_ns": 0, "scope": "opentelemetry.instrumentation.celery"},
            ],
            "frames": [
                {"frame_id": 1, "function": "run", "module": "uvicorn.server"},
                {"frame_id": 2, "function": "_find_and_load", "module": "importlib._bootstrap"},
                {"frame_id": 3, "function": "<module>", "module": "django.db"},
            ],
            # An instrumentation imports what it might meet.
            "stacks": [
                {"stack_id": 1, "frame_id": 1, "depth": 0},
                {"stack_id": 2, "parent_id": 1, "frame_id": 2, "depth": 1},
                {"stack_id": 3, "parent_id": 2, "frame_id": 3, "depth": 2},
            ],
        }
    )
    usual = {"Python", "Linux", "OpenTelemetry"}
    assert software.seen(tables).names == usual | {"SQLAlchemy", "PostgreSQL", "uvicorn", "Celery"}
    limited = FixedTables({"metrics": [{"name": "container.cpu.limit", "ts_ns": 1, "value": 1}]})
    assert software.seen(limited).names == usual | {"Docker", "Kubernetes"}


def test_too_slow_a_rule_is_an_error(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    limits = Limits(result_rows=1)
    result = outcome(rule, FixedTables(rows(("a", 12e6), ("b", 6e6))), limits=limits)
    assert result.state == "error"
    assert "more than 1 rows" in result.reason


def test_at_most_so_many_findings_of_one_rule(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    tables = FixedTables(rows(*((f"n{number:03}", 6e6 + number) for number in range(200))))
    assert len(outcome(rule, tables).findings) == evaluate.MAX_FINDINGS


def test_the_same_tables_give_the_same_findings(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    tables = rows(("b", 6e6), ("a", 6e6), ("c", 12e6))
    first = outcome(rule, FixedTables(tables)).findings
    backwards = {"metric_stats": tables["metric_stats"][::-1]}
    assert outcome(rule, FixedTables(backwards)).findings == first


# --- order and recognition


def finding(rule: Rule, severity: Any, priority: float, key: str) -> Finding:
    (one, *_) = outcome(rule, FixedTables(rows((key, 6e6)))).findings
    return Finding(**{**vars(one), "severity": severity, "priority": priority})


def test_severity_goes_before_priority(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    found = [
        finding(rule, "low", 9.0, "a"),
        finding(rule, "high", 0.1, "b"),
        finding(rule, "high", 0.2, "c"),
    ]
    ordered = evaluate.findings([Outcome(rule, "found", findings=found)])
    assert [one.key["name"] for one in ordered] == ["c", "b", "a"]


def test_rows_with_one_key_are_one_finding_that_names_no_others(tmp_path: Path) -> None:
    rule = load_rule(write(tmp_path))
    found = outcome(rule, FixedTables(rows(("a", 12e6), ("a", 6e6), ("b", 6e6)))).findings
    assert [one.key["name"] for one in found] == ["a", "b"]
    assert found[0].message == "a takes 12 ms, more than 5 ms."
    assert [len(one.evidence) for one in found] == [2, 1]


def test_priority_is_impact_times_confidence_by_effort() -> None:
    assert score.priority("high", (0.2, 0.4), 0.5, "medium") == pytest.approx(0.3 * 0.5 / 2)
    assert score.priority("high", (None, None), 1.0, "low") > score.priority(
        "low", (None, None), 1.0, "low"
    )


def test_fingerprints_tell_keys_apart() -> None:
    assert score.fingerprint("r", {"a": "x", "b": "y"}) == score.fingerprint(
        "r", {"b": "y", "a": "x"}
    )
    different = [
        score.fingerprint("r", {"a": "x"}),
        score.fingerprint("s", {"a": "x"}),
        score.fingerprint("r", {"b": "x"}),
        score.fingerprint("r", {"a": "xb"}),
        score.fingerprint("r", {"a": "x", "b": ""}),
        score.fingerprint("ra", {"": "x"}),
    ]
    assert len(set(different)) == len(different)
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in different)
    # Ledgers hold them, so they must be the same in every version.
    workers = [{"instance": f"gunicorn (pid {pid})", "service": "s"} for pid in (7, 81)]
    assert len({score.fingerprint("r", key) for key in workers}) == 1
    assert score.fingerprint("r", workers[0]) != score.fingerprint(
        "r", {"instance": "celery (pid 7)", "service": "s"}
    )
    assert score.fingerprint("db.slow-query", {"query_id": "abc"}) == "ac40c9f4f9b2c399"


# --- the saving


def spans(*values: tuple[int, int | None, int, int]) -> list[dict[str, Any]]:
    """Return spans of (id, parent, start in ms, length in ms); the root is a server span."""
    return [
        {
            "span_id": number,
            "parent_id": parent,
            "name": f"s{number}",
            "kind": "server" if parent is None else "client",
            "peer": None if parent is None else f"p{number}",
            "endpoint": "GET /" if parent is None else None,
            "start_ns": 10**9 + start * 10**6,
            "duration_ns": length * 10**6,
        }
        for number, parent, start, length in values
    ]


WHAT_IF = """\
what_if:
  rows: |
    SELECT f.finding AS finding, t.row AS row
    FROM findings AS f
    JOIN tree AS t ON t.name = f.name
"""


def saving_rule(tmp_path: Path, ways: str) -> Rule:
    text = changed('risk: "{twice:duration}"\n', WHAT_IF + ways)
    return load_rule(write(tmp_path, text))


def test_the_saving_is_that_of_the_replay(tmp_path: Path) -> None:
    rule = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.5\n")
    one = spans((1, None, 0, 100), (2, 1, 10, 40), (3, 1, 60, 20))
    tables = FixedTables({**rows(("s2", 12e6)), "spans": one})
    (found,) = outcome(rule, tables).findings
    assert found.impact_low_ratio == pytest.approx(0.2)
    assert found.impact_high_ratio == pytest.approx(0.4)
    assert (found.first_seen_ns, found.last_seen_ns) == (1_010_000_000, 1_010_000_000)


def test_more_spans_may_be_replayed_than_a_rule_may_find(tmp_path: Path) -> None:
    rule = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.0\n")
    two = spans((1, None, 0, 100), (2, 1, 10, 40), (2, 1, 60, 20))
    two[2]["span_id"] = 3
    tables = FixedTables({**rows(("s2", 12e6)), "spans": two})
    (found,) = outcome(rule, tables, limits=Limits(result_rows=1)).findings
    assert found.impact_high_ratio == pytest.approx(0.6)


def test_what_is_hidden_behind_something_parallel_saves_nothing(tmp_path: Path) -> None:
    rule = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.0\n")
    one = spans((1, None, 0, 100), (2, 1, 10, 40), (3, 1, 10, 80))
    tables = FixedTables({**rows(("s2", 12e6)), "spans": one})
    (found,) = outcome(rule, tables).findings
    assert found.impact_high_ratio == pytest.approx(0.0)


def test_subtree_takes_what_is_below_along(tmp_path: Path) -> None:
    one = spans((1, None, 0, 100), (2, 1, 10, 80), (3, 2, 20, 60), (4, 1, 92, 4))
    alone = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.0\n")
    below = saving_rule(tmp_path / "b", "  factor_low: 0.0\n  factor_high: 0.0\n  subtree: true\n")
    tables = {**rows(("s2", 12e6)), "spans": one}
    (first,) = outcome(alone, FixedTables(tables)).findings
    (second,) = outcome(below, FixedTables(tables)).findings
    assert first.impact_high_ratio == pytest.approx(0.2)
    assert second.impact_high_ratio == pytest.approx(0.8)


def test_between_takes_the_work_of_a_loop_along(tmp_path: Path) -> None:
    text = changed(
        'risk: "{twice:duration}"\n',
        WHAT_IF + "  factor_low: 0.0\n  factor_high: 0.0\n  between: true\n",
    ).replace(
        "JOIN tree AS t ON t.name = f.name",
        "JOIN tree AS p ON p.name = f.name JOIN tree AS t ON t.parent_row = p.row",
    )
    # 10 ms before, three queries of 10 ms with 20 ms of work after each but the last, 20 ms after.
    one = spans((1, None, 0, 100), (2, 1, 10, 10), (3, 1, 40, 10), (4, 1, 70, 10))
    tables = FixedTables({**rows(("s1", 12e6)), "spans": one})
    (found,) = outcome(load_rule(write(tmp_path, text)), tables).findings
    # At worst half of the work between them goes.
    assert found.impact_low_ratio == pytest.approx(0.5)
    # Own time is 70 ms, 40 ms of it between the queries. It shrinks as a whole, to 30 ms.
    assert found.impact_high_ratio == pytest.approx(0.7)


def test_side_by_side_the_longest_counts(tmp_path: Path) -> None:
    text = changed('risk: "{twice:duration}"\n', WHAT_IF + "  parallel: true\n").replace(
        "JOIN tree AS t ON t.name = f.name",
        "JOIN tree AS p ON p.name = f.name JOIN tree AS t ON t.parent_row = p.row",
    )
    rule = load_rule(write(tmp_path, text))
    one = spans((1, None, 0, 100), (2, 1, 0, 30), (3, 1, 30, 50), (4, 1, 80, 20))
    (found,) = outcome(rule, FixedTables({**rows(("s1", 12e6)), "spans": one})).findings
    assert found.impact_high_ratio == pytest.approx(0.5)
    # No call is longer than is usual at its place, so there is nothing to be better at best.
    assert found.impact_low_ratio == pytest.approx(0.5)


def test_what_is_not_replayed_is_bounded_by_its_plain_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impact, "MAX_REPLAYED", 1)
    rule = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.5\n")
    one = spans((1, None, 0, 100), (2, 1, 10, 40), (3, 1, 60, 20))
    tables = FixedTables({**rows(("s2", 12e6), ("s3", 9e6)), "spans": one})
    by_name = {one.key["name"]: one for one in outcome(rule, tables).findings}
    assert by_name["s2"].impact_low_ratio == pytest.approx(0.2)
    assert by_name["s3"].impact_low_ratio == 0.0
    assert by_name["s3"].impact_high_ratio == pytest.approx(0.2)


def test_a_finding_without_spans_saves_nothing(tmp_path: Path) -> None:
    rule = saving_rule(tmp_path, "  factor_low: 0.0\n  factor_high: 0.5\n")
    tables = FixedTables({**rows(("nowhere", 12e6)), "spans": spans((1, None, 0, 100))})
    (found,) = outcome(rule, tables).findings
    assert (found.impact_low_ratio, found.impact_high_ratio) == (0.0, 0.0)
    assert found.first_seen_ns is None


def test_rows_below_are_those_of_the_tree() -> None:
    one = spans((1, None, 0, 100), (2, 1, 0, 50), (3, 2, 0, 10), (4, 2, 20, 10), (5, 1, 60, 10))
    tables = FixedTables({"spans": one})
    tree = tables.frame("tree")
    row = {name: number for number, name in enumerate(tree["name"])}
    below = mends.below(tables, np.array([row["s2"]]))
    assert set(tree["name"].gather(below)) == {"s2", "s3", "s4"}
    everything = mends.below(tables, np.array([row["s1"], row["s2"]]))
    assert everything.size == 5


def test_given_tables_reach_the_replay() -> None:
    tables = FixedTables({"spans": spans((1, None, 0, 100), (2, 1, 10, 40))})
    tree = tables.frame("tree")
    chosen = np.flatnonzero(tree["name"].to_numpy() == "s2")
    assert saved_ratio(tables, scaled(chosen, 0.0)) == pytest.approx(0.4)


# --- embedded tests can fail


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("severity: high, says", "severity: low, says", "expected severity low, got high"),
        ('["a takes 12 ms"]', '["a takes 13 ms"]', "expected the text 'a takes 13 ms'"),
        ("key: {name: a}}]", "key: {name: b}}]", "expected name = 'b' in the key"),
        ("mean: 12000000", "mean: 1000", "expected 1 findings, got 0"),
        ("mean >= :limit", "LOWER(mean) = 'x'", "the rule failed"),
    ],
)
def test_an_embedded_test_that_does_not_hold_fails(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    rule = load_rule(write(tmp_path, changed(old, new)), tests=True)
    said = check(rule, rule.tests[0])
    assert said is not None
    assert fault in said


def test_quiet_and_not_applicable_are_checked_too(tmp_path: Path) -> None:
    start = RULE.index("    expect:")
    rule = load_rule(write(tmp_path, RULE[:start] + "    expect: quiet\n"), tests=True)
    assert "expected quiet, got found" in (check(rule, rule.tests[0]) or "")
    rule = load_rule(write(tmp_path, RULE[:start] + "    expect: not_applicable\n"), tests=True)
    assert "expected not_applicable, got found" in (check(rule, rule.tests[0]) or "")


def _of(service: str, language: str, scope: str | None = None) -> dict[str, object]:
    resource = f'{{"telemetry.sdk.language":"{language}"}}'
    return {"start_ns": 0, "service": service, "resource": resource, "scope": scope}


def test_advice_is_in_the_language_of_the_program(tmp_path: Path) -> None:
    text = changed(
        "[Look, Think]",
        '[Look, {software: Python, step: "import"}, {software: Node.js, step: "require"}]',
    ).replace("software: Redis, name: speed", "software: ioredis, name: speed")
    rule = load_rule(write(tmp_path, text))

    def advised(*spans: dict[str, object]) -> tuple[list[str], list[str]]:
        numbered = [{**span, "span_id": number} for number, span in enumerate(spans, 1)]
        (found,) = outcome(rule, FixedTables({**rows(("a", 12e6)), "spans": numbered})).findings
        return found.fix["steps"], [one["software"] for one in found.fix["settings"]]

    redis = "@opentelemetry/instrumentation-ioredis"
    assert advised(_of("edge", "nodejs", redis)) == (["Look", "require"], ["ioredis"])
    assert advised(_of("shop", "python")) == (["Look", "import"], ["Python"])
    assert advised(_of("shop", "rust")) == (["Look"], [])
    # Where nothing says a language, most programs are written in this one.
    assert advised({"start_ns": 0}) == (["Look", "import"], ["Python"])
    both = _of("edge", "nodejs", redis), _of("shop", "python")
    assert advised(*both) == (["Look", "import", "require"], ["Python", "ioredis"])


def test_no_settings_of_a_database_beside_the_one_that_was_seen(tmp_path: Path) -> None:
    text = changed("software: Redis, name: speed", "software: MongoDB, name: speed")
    rule = load_rule(write(tmp_path, text))
    seen = {**rows(("a", 12e6)), "spans": [{"span_id": 1, "start_ns": 0, "db_system": "redis"}]}
    (found,) = outcome(rule, FixedTables(seen)).findings
    assert [one["software"] for one in found.fix["settings"]] == ["Python"]
    (found,) = outcome(rule, FixedTables(rows(("a", 12e6)))).findings
    assert [one["software"] for one in found.fix["settings"]] == ["Python", "MongoDB"]


def test_advice_about_a_service_is_in_its_own_language() -> None:
    spans = [
        {**_of("edge", "nodejs", "@opentelemetry/instrumentation-pg"), "span_id": 1},
        {**_of("shop", "python", "opentelemetry.instrumentation.sqlalchemy"), "span_id": 2},
    ]
    named = [{"name": "jvm.gc.duration", "service": "bank", "ts_ns": 1, "value": 1}]
    seen = software.seen(FixedTables({"spans": spans, "metrics": named}))
    assert seen.languages == {"Node.js", "Python", "Java"}
    assert {"pg", "SQLAlchemy"} <= seen.names
    assert {"pg", "SQLAlchemy"} & seen.of("edge").names == {"pg"}
    assert {"pg", "SQLAlchemy"} & seen.of("shop").names == {"SQLAlchemy"}
    assert {"pg", "SQLAlchemy"} & seen.of("bank").names == set()
    assert seen.of("nobody") == seen.of(None) == seen
