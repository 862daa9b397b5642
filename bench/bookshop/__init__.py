"""A small bookshop: a second service with planted problems, which no rule was written for."""
