"""SQL from outside: checked before it runs, and bounded while it does."""
