"""Worlds, their worker processes and the renderers."""
