"""Screens for a customer, across areas; owns no tables."""
