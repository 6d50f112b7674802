"""What `enhance` and `compare` do, from files to results."""
