"""Online experiments: who is in which arm, what they saw and did, and what may be concluded."""
