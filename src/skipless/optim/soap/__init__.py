"""SOAP: the optimizer, its eigenbases, and the sharding of its state."""
