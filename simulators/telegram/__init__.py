"""Telegram on a laptop: the Bot API for programs and a phone page for people."""
