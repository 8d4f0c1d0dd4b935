"""Adapters: how each library's transformer block is described, and its skips are left out. One file a library."""
