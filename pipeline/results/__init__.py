"""From finished runs to tables, ours beside printed."""
