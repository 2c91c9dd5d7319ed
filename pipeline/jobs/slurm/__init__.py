"""Slurm: what it is asked and told, arrays sent to it, and the plan reconciled with its queue."""
