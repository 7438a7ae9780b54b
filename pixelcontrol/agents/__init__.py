"""The agents: each a final class in one file that reads from top to bottom."""
