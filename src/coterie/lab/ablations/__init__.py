"""Variants of PIA that ranked no better beyond chance, kept so that the results book runs again."""
