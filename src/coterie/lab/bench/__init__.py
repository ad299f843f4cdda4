"""The engine's speed on the machine at hand, as ratios to what no implementation can do without."""
