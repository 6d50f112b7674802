"""What the inference methods share."""
