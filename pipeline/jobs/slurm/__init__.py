"""Slurm: its tools, the arrays submitted to it, and the plan reconciled with its queue."""
