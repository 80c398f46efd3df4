"""Tiers, subscriptions, checkout, and the sync with Stripe."""
