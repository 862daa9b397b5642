"""A small rule as text, for tests that break it."""

from __future__ import annotations

from pathlib import Path

RULE = """\
id: test.slow
title: A slow thing
category: test
status: stable
requires:
  metric_stats: [mean]
params:
  limit: {default: 5, unit: ms, source: house}
query: |
  SELECT name, mean
  FROM metric_stats
  WHERE mean >= :limit
  ORDER BY mean DESC, name
derive:
  twice: mean * 2
  confidence: CASE WHEN mean > 1 THEN 0.9 END
severity:
  - {when: twice >= 20000000, is: high}
  - {is: low}
key: [name]
headline: "Look at {name:text}"
message: |
  {name:text} takes {mean:duration}, more than {limit:duration}.
risk: "{twice:duration}"
why: It is slow.
fix:
  summary: Make it faster.
  effort: low
  steps: [Look, Think]
  settings:
    - {software: Python, name: speed, value: "{twice:duration}"}
    - {software: Redis, name: speed, value: "1", when: mean > 0}
  verify: {metric: mean, expect: "below {limit:duration}"}
false_positives: [None known.]
references:
  - {title: Docs, url: "https://example.org/"}
tests:
  - name: slow
    tables:
      metric_stats: [{name: a, mean: 12000000}]
    expect: [{severity: high, says: ["a takes 12 ms"], key: {name: a}}]
"""


def write(folder: Path, text: str = RULE, name: str = "test.slow") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert RULE.count(old) == 1, old
    return RULE.replace(old, new)
