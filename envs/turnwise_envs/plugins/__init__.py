"""Adapters: environments made of what others wrote, one module each, installed as `turnwise.adapters`."""
