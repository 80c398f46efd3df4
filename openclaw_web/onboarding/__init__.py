"""The chat that ends in a paid box."""
