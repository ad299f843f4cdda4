"""From logs to data sets: readers, preparation, ids, splits and the simulated service."""
