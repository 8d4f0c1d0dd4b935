"""Dense linear probing (section 6.2.1): its protocols, its heads and its scores."""
