"""How work runs: where, with how many processes, watched and stopped how."""
