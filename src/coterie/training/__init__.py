"""From a data set and a configuration to a trained model."""
