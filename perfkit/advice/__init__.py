"""Advice: what people decided about findings, and what came of it."""
