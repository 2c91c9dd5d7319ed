"""Verdicts on what the paper claims, from finished runs alone, no wider than their evidence (docs/decisions/0022)."""
