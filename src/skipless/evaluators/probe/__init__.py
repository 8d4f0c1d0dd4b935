"""Dense linear probing (section 6.2.1): protocols, heads and scores."""
