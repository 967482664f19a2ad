"""Plain modules on torch: a vision transformer and its projection head, under the official key names."""
