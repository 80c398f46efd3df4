"""OpenClaw Cloud: a customer chats, pays, and gets an OpenClaw assistant of their own."""

from openclaw_web.core import compiled

compiled.use()
