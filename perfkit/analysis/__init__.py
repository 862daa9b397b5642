"""Derived tables: functions from tables to tables. `DERIVED` lists every one of them."""

from __future__ import annotations

from perfkit.analysis.session import Derived

DERIVED: tuple[Derived, ...] = ()
