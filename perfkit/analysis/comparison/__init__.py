"""What differs between two populations or two captures, and what made it differ."""
