"""SOAP: the optimizer, its eigenbases, and how several processes share its state."""
