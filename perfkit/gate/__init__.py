"""The gate: budgets, rules and regressions of one or more runs, and the history of many.

A run becomes a small table of figures (`figures`). Budgets limit them, `regression` compares those
of several runs with those of a baseline, and `history` keeps them. What comes of it is a `Result`,
which the modules in `outputs` write for those who read it.
"""
