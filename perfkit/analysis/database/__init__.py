"""What was asked of databases: statements without their values, and their repeats."""
