"""What changed over time: series in buckets, trends and shifts."""
