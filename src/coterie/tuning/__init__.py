"""Tuning: a search over configurations, judged by the validation users."""
