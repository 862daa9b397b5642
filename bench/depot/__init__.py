"""A small depot: a fourth service with planted problems, all of it on one event loop."""
