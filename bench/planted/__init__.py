"""Services with planted problems: what they share."""
