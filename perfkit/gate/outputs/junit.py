"""JUnit XML, as Jenkins and GitLab read it: one test case a check.

A failed check is a failure, one that could not be made an error, an unstable one is skipped:
readers of JUnit know no other state that is neither passed nor failed.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # only written here, never read

from perfkit.gate.result import STATES, Check, Result

_NAMES = {"failed": "failure", "error": "error", "unstable": "skipped"}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(result: Result) -> bytes:
    """Return the result as JUnit XML; one suite for each kind of check."""
    root = ET.Element("testsuites", name="perfkit check")
    for kind in dict.fromkeys(check.kind for check in result.checks):
        checks = [check for check in result.of(*STATES) if check.kind == kind]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=f"perfkit.{kind}",
            tests=str(len(checks)),
            failures=_count(checks, "failed"),
            errors=_count(checks, "error"),
            skipped=_count(checks, "unstable"),
            time="0",
        )
        for check in checks:
            _add(suite, check)
        if result.warnings:
            ET.SubElement(suite, "system-out").text = _clean("\n".join(result.warnings))
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _count(checks: list[Check], state: str) -> str:
    return str(sum(check.state == state for check in checks))


def _add(suite: ET.Element, check: Check) -> None:
    name = f"{check.name} [{check.thing}]" if check.thing else check.name
    case = ET.SubElement(
        suite, "testcase", classname=f"perfkit.{check.kind}", name=_clean(name), time="0"
    )
    if check.state == "passed":
        ET.SubElement(case, "system-out").text = _clean(check.message)
        return
    outcome = ET.SubElement(case, _NAMES[check.state])
    if check.state != "unstable":  # the schema knows no attributes of `skipped`
        outcome.set("message", _clean(check.message))
        outcome.set("type", check.severity or check.kind)
    outcome.text = _clean("\n".join(part for part in (check.message, check.help) if part))


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
