"""From scores to ranking metrics, cohorts and paired comparisons."""
