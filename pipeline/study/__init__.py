"""The paper: its numbers, the experiments of its tables, and the grids that name sets of runs."""
