"""The text of a new rule: small, complete and valid, to be changed line by line."""

from __future__ import annotations

_TEMPLATE = """\
# Check it: perfkit rules lint FILE.  Run its tests: perfkit rules test --rules FOLDER {id}
id: {id}
title: An operation is slow
category: {category}
status: experimental

# Without these tables and columns the rule is not applicable. docs/tables.md lists them all.
requires:
  operations: [p95_ns]

params:
  slow: {{default: 500, unit: ms, source: "house; say where your number comes from"}}
  min_calls: {{default: 20, unit: count, source: house}}

# One row is one suspicion.
query: |
  SELECT name, service, count, p95_ns, self_ns
  FROM operations
  WHERE p95_ns >= :slow AND count >= :min_calls
  ORDER BY self_ns DESC, name, service

# More columns. `confidence`, from 0 to 1, must be one of them.
derive:
  confidence: "0.6"

# The first line that holds decides.
severity:
  - {{when: p95_ns >= 2 * :slow, is: medium}}
  - {{is: low}}

# By these the finding is recognised in the next capture.
key: [name, service]

headline: "Find out why {{name:text}} is slow"
message: |
  {{p95_ns:duration}} at the 95th percentile in {{count:number}} calls, above {{slow:duration}}.
why: Say what makes it slow, and whom that hurts.

fix:
  summary: Say what to do.
  effort: medium
  steps: [The first step., The second step.]
  verify: {{metric: "p95 of {{name:text}}", expect: "below {{slow:duration}}"}}

false_positives: [Say when this is not a problem.]

references:
  - {{title: "The Four Golden Signals", url: "https://sre.google/sre-book/monitoring-distributed-systems/"}}

tests:
  - name: slow in most calls
    tables:
      operations: [{{name: search, service: shop, count: 100, p95_ns: 700ms, self_ns: 9s}}]
    expect: [{{severity: low, says: ["700 ms at the 95th percentile"], key: {{name: search}}}}]
  - name: quick
    tables:
      operations: [{{name: search, service: shop, count: 100, p95_ns: 70ms, self_ns: 2s}}]
    expect: quiet
  - name: no spans
    tables: {{}}
    expect: not_applicable
"""


def text(rule_id: str) -> str:
    """Return the text of a rule with this id, which must be a valid one."""
    return _TEMPLATE.format(id=rule_id, category=rule_id.partition(".")[0])
