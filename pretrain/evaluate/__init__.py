"""Measures of a frozen backbone."""
