"""One library, one file: how it builds, searches and saves, as the benchmark asks it."""
