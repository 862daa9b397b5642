from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from perfkit import units
from perfkit.capture import CaptureWriter
from perfkit.errors import CaptureError
from perfkit.report import assets, sections
from perfkit.report.render import build, render
from perfkit.report.sections import SECTIONS, bottlenecks, summary
from perfkit.resources import data_dir
from tests.analysis.build import S, write
from tests.report.build import START, _columns, open_tables, spans, write_capture
from tests.report.page import Page, digest

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x00\u202e\u2028`{{7*7}}`"


def names(folder: Path, suffix: str) -> set[str]:
    return {path.stem for path in folder.glob(f"*{suffix}") if not path.stem.startswith("_")}


def test_every_section_is_listed_and_has_its_template() -> None:
    listed = [section.__name__.rpartition(".")[2] for section in SECTIONS]
    assert set(listed) == names(Path(sections.__file__).parent, ".py")
    assert set(listed) == names(data_dir("report_templates") / "sections", ".html")
    assert all(
        section.EMPTY.keys() == {"what", "how", "command"} for section in SECTIONS if section.NEEDS
    )


def test_every_script_of_the_folder_is_in_the_page(page: Page) -> None:
    shipped = {path.name for path in (data_dir("report_templates") / "assets").glob("*.js")}
    known = {"theme.js", "plotly-perfkit.min.js"}
    for stem in assets.ORDER:
        known |= {
            path.name for path in (data_dir("report_templates") / "assets").glob(f"{stem}.js")
        }
    assert shipped <= known
    assert len(page.scripts) == len(shipped) - 1


def test_only_the_scripts_of_the_page_may_run(page: Page) -> None:
    allowed = page.policy["script-src"]
    assert sorted(allowed) == sorted({digest(script) for script in [*page.scripts, page.plotly]})
    assert page.policy["default-src"] == ["'none'"]
    assert page.policy["base-uri"] == page.policy["form-action"] == ["'none'"]
    assert "connect-src" not in page.policy


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.elements:
        for name, content in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name in ("src", "srcset", "data", "action", "poster"):
                raise AssertionError(f"<{tag} {name}={content}>")
            if name == "href" and not (content or "").startswith(("#", "data:")):
                assert tag == "a", f"<{tag} href={content}>"
                assert (content or "").startswith("https://")
                assert attributes["rel"] == "noopener noreferrer"
    styles = page.html.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in styles
    loaded = re.findall(r"url\(([^)]*)\)", styles)
    assert all(address.strip("'\"").startswith(("data:", "#")) for address in loaded)


def test_scripts_have_nothing_that_ends_them_early() -> None:
    loaded = assets.load()
    for script in (loaded.theme, *loaded.scripts):
        assert "</script" not in script.lower()
        assert "<!--" not in script
    assert "</style" not in loaded.styles.lower()


def test_the_same_capture_gives_the_same_page(capture: Path) -> None:
    first, second = (render(open_tables(capture), [], title="t") for _ in range(2))
    assert first == second


def test_without_the_bundle_plotly_comes_from_its_package(tmp_path: Path) -> None:
    text = assets._plotly(tmp_path / "absent.js")
    assert "plotly.js v" in text[:300]


def test_hostile_names_stay_text(tmp_path: Path, page: Page) -> None:
    tables = open_tables(write_capture(tmp_path / "hostile.perfkit", hostile=HOSTILE))
    made = build(tables, [], title=HOSTILE)
    assert made.failed == []
    hostile = Page(made.html)
    assert hostile.scripts == page.scripts
    assert not hostile.all("img")
    assert "\x00" not in made.html
    assert "\u202e" not in made.html
    assert "alert(1)" in hostile.words
    assert "\\u202e" in hostile.words
    assert "{{7*7}}" in hostile.words
    strings = hostile.data["flame_requests"]["tree"]["strings"]
    assert any("alert(1)" in text for text in strings)
    assert all("\u202e" not in text and "\x00" not in text for text in strings)


@pytest.mark.slow
def test_a_name_of_most_of_a_megabyte_is_cut(tmp_path: Path) -> None:
    name = "".join(chr(0x4E00 + number * 7919 % 20_000) for number in range(1 << 18))
    path = write_capture(tmp_path / "long.perfkit", requests=2, hostile=name, with_metrics=False)
    tables = open_tables(path)
    made = build(tables, [], title="long")
    assert made.failed == []
    assert len(made.html.encode()) < 6_000_000
    assert "of 262,144 characters; the capture has all of it" in made.html


def test_what_slow_and_failed_requests_have_in_common_is_told(tmp_path: Path) -> None:
    spans = [
        S(
            1,
            number * 10**8,
            number * 10**8 + (90 if number % 4 == 3 else 8 + number % 5) * 10**6,
            trace=number + 1,
            kind="server",
            endpoint="GET /<b>orders",
            instance=f"shop-{number % 4}",
            status="error" if number % 8 == 3 else "unset",
        )
        for number in range(160)
    ]
    made = build(open_tables(write(tmp_path / "sick.perfkit", spans)), [], title="t")
    assert made.failed == []
    words = " ".join(Page(made.html).words.split())
    start = "GET /<b>orders: all of the"
    assert f"{start} failed requests have instance=shop-3, 14 % of the others." in words
    assert f"{start} slow requests have instance=shop-3, none of typical ones." in words


def test_secrets_are_nowhere_in_the_page(page: Page) -> None:
    content = gzip.decompress(base64.b64decode(page.blocks["perfkit-data"]))
    for secret in ("s3cr3t-value", "hunter2"):
        assert secret not in page.html
        assert secret.encode() not in content
    assert "--token [masked]" in page.words


def test_a_section_that_fails_leaves_the_rest(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: Any) -> dict[str, Any]:
        raise KeyError("<no such column>")

    monkeypatch.setattr(bottlenecks, "build", broken)
    made = build(open_tables(capture), [], title="t")
    assert made.failed == ["section bottlenecks: KeyError: '<no such column>'"]
    broken_page = Page(made.html)
    assert "This section could not be made" in broken_page.words
    assert "KeyError: '<no such column>'" in broken_page.words
    assert "bottlenecks" not in broken_page.data
    assert "flame_requests" in broken_page.data


def test_a_fault_of_the_capture_is_not_hidden_in_a_card(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(context: Any) -> dict[str, Any]:
        raise CaptureError("part 1: damaged")

    monkeypatch.setattr(summary, "build", damaged)
    with pytest.raises(CaptureError, match="damaged"):
        build(open_tables(capture), [], title="t")


@pytest.mark.parametrize(
    ("kinds", "absent", "there"),
    [
        ((), ("summary", "flame_requests", "flame_code", "heatmaps"), ()),
        (("with_spans",), ("flame_code",), ("flame_requests", "slow_requests", "heatmaps")),
        (("with_samples",), ("flame_requests", "slow_requests", "slow_queries"), ("flame_code",)),
        (("with_metrics",), ("flame_requests", "flame_code"), ("heatmaps",)),
    ],
)
def test_a_capture_of_one_kind_is_a_good_report(
    tmp_path: Path, kinds: tuple[str, ...], absent: tuple[str, ...], there: tuple[str, ...]
) -> None:
    all_kinds = dict.fromkeys(("with_spans", "with_samples", "with_metrics"), False)
    path = write_capture(tmp_path / "one.perfkit", **{**all_kinds, **dict.fromkeys(kinds, True)})
    made = build(open_tables(path), [], title="one kind")
    assert made.failed == []
    partial = Page(made.html)
    assert not set(absent) & partial.data.keys()
    assert set(there) <= partial.data.keys()
    assert partial.words.count("To get them:") == 3 - len(kinds)
    if not kinds:
        assert "This capture is empty" in partial.words


def test_what_is_absent_is_told_once_and_not_navigated_to(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "code.perfkit", with_spans=False, with_metrics=False)
    partial = Page(render(open_tables(path), [], title="t"))
    hrefs = [attributes.get("href") for tag, attributes in partial.elements if tag == "a"]
    assert "#flame_code" in hrefs
    assert "#bottlenecks" not in hrefs
    assert "Not in this report" in partial.words
    assert "nobody knows what requests waited for" in partial.words
    assert "Latency" not in partial.words.split("What this capture lacks")[0]


@pytest.mark.parametrize(
    ("language", "how"),
    [
        ("nodejs", "node --cpu-prof, then perfkit import FILE.cpuprofile"),
        ("erlang", "a CPU profile of the process as pprof or collapsed stacks"),
        ("python", "perfkit record --pid PID"),
    ],
)
def test_how_to_get_stacks_is_said_for_the_language(
    tmp_path: Path, language: str, how: str
) -> None:
    with CaptureWriter(tmp_path / "spans.perfkit") as writer:
        resource = f'{{"telemetry.sdk.language":"{language}"}}'
        named = [one | {"resource": resource} for one in spans(10, None)]
        writer.append("spans", _columns(named))
    page = Page(render(open_tables(tmp_path / "spans.perfkit"), [], title="t"))
    assert how in page.words.split("which code ran is not known")[1][:200]


def test_time_between_files_is_no_time_of_the_rate(tmp_path: Path) -> None:
    a_week_later_ns = START + 7 * 86_400 * 10**9
    with CaptureWriter(tmp_path / "far.perfkit") as writer:
        writer.append("spans", _columns(spans(60, None)))
        writer.append("metrics", {"ts_ns": [a_week_later_ns], "name": ["x"], "value": [1.0]})
    page = Page(render(open_tables(tmp_path / "far.perfkit"), [], title="t"))
    entries = 60
    rate = units.rate(entries / (page.data["page"]["covered_ns"] / 1e9))
    assert page.data["page"]["duration_ns"] > 6 * 86_400 * 10**9
    assert rate.endswith("/s")
    assert f"Rate {rate}" in " ".join(page.words.split())


def test_the_filters_of_a_report_are_said(capture: Path) -> None:
    tables = open_tables(capture, endpoint="GET /items/{id}", min_duration_ns=1_000_000)
    filtered = Page(render(tables, [], title="t"))
    said = "made of a part of the capture only: endpoint GET /items/{id}; at least 1 ms."
    assert said in filtered.words
    assert filtered.data["page"]["endpoints"] == ["GET /items/{id}"]


def test_an_ordinary_report_is_small(tmp_path: Path) -> None:
    tables = open_tables(write_capture(tmp_path / "many.perfkit", requests=2000))
    assert len(render(tables, [], title="many").encode()) < 2_000_000


def test_a_saving_that_another_finding_makes_too_links_to_it(page: Page) -> None:
    assert "saves: the two do not add up." in page.html
