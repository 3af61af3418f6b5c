"""How a search is planned, run and made into hits."""
