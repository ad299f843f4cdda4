"""How models would have done week after week: trained at each cut, measured on what came next."""
