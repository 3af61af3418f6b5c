"""What keeps a collection fit: checks, repair, reclaiming, requantizing, statistics."""
