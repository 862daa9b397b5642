"""What would be if something were changed: requests replayed with edits."""
