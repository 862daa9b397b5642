"""What stack samples say: call trees, functions, threads, and the code of requests."""
