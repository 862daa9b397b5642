"""The result of a gate for those who read it: each module makes one format, as bytes."""
