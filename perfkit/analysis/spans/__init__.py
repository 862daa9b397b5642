"""What spans say: trees, waits, critical paths, requests, components."""
