"""What the slider shows is what replays say."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from perfkit.analysis.replay.edits import scaled
from perfkit.analysis.replay.what_if import Change, forecast
from perfkit.analysis.session import Tables
from perfkit.report import bottleneck_cards, what_if
from perfkit.report.context import Context
from tests.report.build import open_tables
from tests.report.incident import write_incident

UPDATE = {
    "service": "gateway",
    "category": "database",
    "component": "db.internal:5432",
    "name": "UPDATE",
}


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    path = tmp_path_factory.mktemp("what-if") / "incident.perfkit"
    return open_tables(write_incident(path, seconds=60, rate=10))


def test_each_step_is_a_replay_of_all_and_of_each_endpoint(incident: Tables) -> None:
    replays = what_if.run(incident, [UPDATE])
    assert replays.steps == (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    assert replays.endpoints == [None, "POST /orders", "GET /items/{id}"]
    rows = incident.frame("tree").filter(pl.col("name") == "UPDATE")["row"].to_numpy()
    for step, share in enumerate(replays.steps, 1):
        edits = scaled(rows, 1.0 - share)
        for by, group in (((), 0), (("endpoint",), 1)):
            expected = forecast(incident, Change(edits, edits), by).row(0, named=True)
            for measure in what_if.MEASURES:
                for when, at in (("now", 0), ("low", step)):
                    found = replays.at(0, at, group, measure)
                    assert found == pytest.approx(expected[f"{measure}_{when}_ns"], rel=1e-6)


def test_other_endpoints_are_not_touched(incident: Tables) -> None:
    replays = what_if.run(incident, [UPDATE])
    assert replays.at(0, 6, 2, "p95") == replays.at(0, 0, 2, "p95")
    assert replays.at(0, 6, 1, "p95") < replays.at(0, 0, 1, "p95")


def test_a_key_of_a_component_takes_all_of_its_operations(incident: Tables) -> None:
    whole = {key: UPDATE[key] for key in bottleneck_cards.COMPONENT}
    one, all_ = what_if.run(incident, [UPDATE, whole]).values
    assert all_[-1] < one[-1] or (all_ <= one + 1).all()
    assert all_[-4] < one[-4]


def test_large_captures_get_fewer_replays(
    incident: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = incident.frame("tree").height
    monkeypatch.setattr(what_if, "_BUDGET", spans * 2)
    assert what_if.fitting(spans) == 1
    assert what_if.run(incident, [UPDATE]).steps == (0.5, 1.0)


def test_cards_say_how_requests_reach_them_and_what_contends(incident: Tables) -> None:
    operations = incident.frame("operations").sort("critical_ns", descending=True).to_dicts()
    context = Context(incident, [], "")
    found = bottleneck_cards.build(context, operations, [])
    by_title = {(card["service"], card["title"]): card for card in found.cards}
    assert by_title["gateway", "UPDATE"]["path"] == ["POST /orders", "UPDATE"]
    assert by_title["stock", "SELECT"]["path"] == [
        *("POST /orders", "POST /reserve", "POST /reserve", "SELECT")
    ]
    assert any("pool orders" in text for text in by_title["gateway", "UPDATE"]["contention"])
    assert by_title["gateway", "UPDATE"]["replayed"][-1]["step"] == "100 % less"


def test_without_request_time_there_are_no_cards(tmp_path: Path) -> None:
    tables = open_tables(write_incident(tmp_path / "a.perfkit", seconds=10, rate=2))
    assert bottleneck_cards.build(Context(tables, [], ""), [], []).data is None
