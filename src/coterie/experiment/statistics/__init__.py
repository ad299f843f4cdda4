"""Statistics of experiments, on moments of sums per user."""
