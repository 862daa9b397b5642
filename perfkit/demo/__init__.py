"""A small MCP-style tool gateway with planted performance problems, and the load that shows them.

It is an ordinary service, instrumented with OpenTelemetry as its owner would do it, and knows
nothing of perfkit. Start reading at `app.py`; `problems.py` lists what is planted.
"""
