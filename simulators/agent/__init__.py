"""A stand-in for OpenClaw: its configuration, health endpoints, Telegram loop and model calls."""
