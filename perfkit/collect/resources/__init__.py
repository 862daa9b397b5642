"""Measures processes, control group and machine, as rows of the table `metrics`.

Names follow OpenTelemetry's semantic conventions where these have one; docs/metrics.md lists all.
Rows of a process and of its control group have `PROGRAM (pid N)` as their instance, those of the
machine its host name. Everything comes from /proc and /sys: no permission is needed for one's
own processes, and what another user's hide is left out.
"""
