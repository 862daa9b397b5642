"""Who waited for what: pools, locks, event loops, the machine."""
