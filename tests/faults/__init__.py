"""Faults to inject, each a small function; what uses them must leave nothing behind."""
