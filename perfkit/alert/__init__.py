"""Alerts: what a capture shows that somebody should know now, and how it reaches them."""
