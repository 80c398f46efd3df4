"""Screens for the operator of the business, across areas; owns no tables."""
