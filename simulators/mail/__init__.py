"""A mail server on a laptop: takes every message over SMTP and shows it in an inbox."""
