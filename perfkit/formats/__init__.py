"""Wire formats: bytes in, batches out, no files and no network."""
