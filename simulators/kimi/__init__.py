"""Kimi on a laptop: a model API in the OpenAI and Anthropic forms that answers as it is told."""
