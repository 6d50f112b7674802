"""Visual reliability: from the score of the lips to a gate or a switch."""
