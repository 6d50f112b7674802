"""Speech priors."""
