"""From scores to recommendations."""
