"""The laboratory: what studies models; nothing outside it but the command line knows of it."""
