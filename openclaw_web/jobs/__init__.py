"""The operator's queue: what is to be done to a box, and what became of it; webhooks; alerts."""
