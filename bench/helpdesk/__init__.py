"""A small helpdesk: a third service with planted problems, of another kind than the first two."""
