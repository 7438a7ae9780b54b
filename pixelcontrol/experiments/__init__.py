"""Sweeps over tasks, agents and seeds; statistics, figures, reports."""
