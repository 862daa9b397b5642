"""Which finding comes first, and how it is recognised in the next capture."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from perfkit.rules.model import SEVERITIES, Effort, Finding, Severity

_PID = re.compile(r"\(?\bpid \d+\)?")
"""What recording calls a process by; it is another one in the next capture."""

# Ours: a change of a setting, of a function, of how parts work together.
_EFFORT_WEIGHT: dict[Effort, float] = {"low": 1.0, "medium": 2.0, "high": 4.0}

# Ours: a risk claims no saving; it ranks as if it saved this much.
_RISK_WEIGHT: dict[Severity, float] = {"high": 0.25, "medium": 0.1, "low": 0.02, "info": 0.0}


def fingerprint(rule_id: str, key: Mapping[str, str]) -> str:
    """Return 16 hexadecimal digits that are the same for the same rule and key in any capture.

    Of processes the name counts and not the id.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (
        rule_id,
        *(text for name in sorted(key) for text in (name, _PID.sub("", key[name]))),
    ):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def priority(
    severity: Severity,
    impact: tuple[float | None, float | None],
    confidence: float,
    effort: Effort,
) -> float:
    """Return impact × confidence ÷ effort; impact is the middle of its range."""
    low, high = impact
    share = _RISK_WEIGHT[severity] if high is None else ((low or 0.0) + high) / 2
    return share * confidence / _EFFORT_WEIGHT[effort]


def rank(finding: Finding) -> tuple[int, float, str, str]:
    """Return the sort key of a finding: severity, then priority, then its name."""
    severity = SEVERITIES.index(finding.severity)
    return severity, -finding.priority, finding.rule_id, finding.fingerprint
