"""From tables and findings to one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from perfkit import __version__, units
from perfkit.analysis.session import Tables
from perfkit.errors import PerfkitError
from perfkit.report import assets
from perfkit.report.baseline import Baseline
from perfkit.report.context import Context
from perfkit.report.marks import marks
from perfkit.report.pack import pack
from perfkit.report.sections import SECTIONS, SHORT, Section, capture_health
from perfkit.report.templates import environment
from perfkit.report.text import clean, clean_all
from perfkit.rules.messages import shorten
from perfkit.rules.model import Followed, Outcome


@dataclass(frozen=True)
class Page:
    """A report, and what could not be put into it."""

    html: str
    failed: list[str]
    """One line for each section that raised; the page shows an error card in its place."""


@dataclass(frozen=True)
class _Built:
    name: str
    title: str
    body: Markup
    data: dict[str, Any] | None
    absent: dict[str, str] | None = None
    """What is said instead, and how to get it, where the capture lacks what the section needs."""


def render(tables: Tables, outcomes: list[Outcome], *, title: str) -> str:
    """Return the whole HTML file. The same tables and outcomes give the same text."""
    return build(tables, outcomes, title=title).html


def build(
    tables: Tables,
    outcomes: list[Outcome],
    *,
    title: str,
    followed: Sequence[Followed] = (),
    baseline: Baseline | None = None,
) -> Page:
    """Return the page and the sections that failed.

    Raises PerfkitError when the capture or the filters are at fault: that is the user's to mend.
    Any other exception of a section becomes an error card, and the rest of the report stands.
    """
    context = Context(tables, outcomes, title, followed, baseline)
    failed: list[str] = []
    built = [_section(section, context, failed) for section in SECTIONS]
    population = context.population
    data = {
        "page": {
            "start_unix_ms": population.origin_ns / 1e6,
            "duration_ns": population.duration_ns,
            "covered_ns": max(context.facts["duration_ns"], 1),
            "endpoints": population.endpoints,
            "tools": population.tools,
            "services": population.services,
            "marks": marks(context),
        },
        **{section.name: section.data for section in built if section.data is not None},
    }
    inlined = assets.load()
    html = (
        environment()
        .get_template("report.html")
        .render(
            title=title,
            version=__version__,
            info=tables.capture.info,
            meta=_meta(context),
            filtered="; ".join(capture_health.describe_filters(context)),
            sections=[section for section in built if section.absent is None],
            absent=[section for section in built if section.absent is not None],
            short=SHORT,
            policy=inlined.policy,
            styles=Markup(inlined.styles),  # noqa: S704 - shipped with perfkit
            theme=Markup(inlined.theme),  # noqa: S704
            scripts=[Markup(script) for script in inlined.scripts],  # noqa: S704
            plotly=Markup(inlined.plotly_packed),  # noqa: S704 - base64
            data=Markup(pack(clean_all(data))),  # noqa: S704 - base64
        )
    )
    return Page(html, failed)


def _meta(context: Context) -> list[str]:
    """Return what the capture is, in a few words each."""
    facts, info = context.facts, context.tables.capture.info
    services = facts["services"] or []
    parts = [
        f"{units.timestamp(facts['start_ns'])} for {units.duration(facts['duration_ns'])}"
        if facts["start_ns"] is not None
        else "",
        f"services {', '.join(shorten(name, 60) for name in services[:3])}" if services else "",
        f"and {len(services) - 3} more" if len(services) > 3 else "",
        f"host {info.host}" if info.host else "",
        f"{units.number(facts['entries'])} requests" if facts["entries"] else "",
        f"{units.number(facts['spans'])} spans" if facts["spans"] else "",
        f"{units.number(facts['samples'])} stack samples" if facts["samples"] else "",
        f"{units.number(facts['metric_points'])} metric points" if facts["metric_points"] else "",
    ]
    return [part for part in parts if part]


def _section(section: Section, context: Context, failed: list[str]) -> _Built:
    name = section.__name__.rpartition(".")[2]
    templates = environment()
    try:
        lacking = [table for table in section.NEEDS if not context.tables.has_rows(table)]
        if lacking:
            return _Built(name, section.TITLE, Markup(), None, section.EMPTY)
        values = section.build(context)
        body = templates.get_template(f"sections/{name}.html").render(**values, context=context)
        return _Built(name, section.TITLE, Markup(body), values.get("data"))  # noqa: S704
    except PerfkitError:
        raise
    except Exception as error:
        reason = clean(f"{type(error).__name__}: {error}")
        failed.append(f"section {name}: {reason}")
        body = templates.get_template("sections/_error.html").render(reason=reason)
        return _Built(name, section.TITLE, Markup(body), None)  # noqa: S704
