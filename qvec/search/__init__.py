"""One search: options, plan, strategy, engine and results."""
