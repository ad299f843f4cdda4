"""The simulated streaming service: titles, people with tastes, and the log they leave."""
