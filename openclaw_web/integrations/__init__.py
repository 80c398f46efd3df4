"""The only place that meets a vendor: one module for each, in our words."""
