"""Tests, estimates and detectors on plain numbers; nothing here knows a table."""
