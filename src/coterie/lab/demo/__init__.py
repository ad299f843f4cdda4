"""The demo: the main job on the simulated service, with a figure."""
