"""Train agents that control a body from camera images."""
