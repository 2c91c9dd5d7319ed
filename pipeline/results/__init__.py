"""From finished runs to tables, verdicts and figures, with the paper's results next to ours."""
