"""The dashboard: what a service, or a folder of runs, looks like in a browser."""

from coterie.dashboard.door import create_dashboard, show_dashboard

__all__ = ["create_dashboard", "show_dashboard"]
