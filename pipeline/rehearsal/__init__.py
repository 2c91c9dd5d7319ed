"""The training programs on a GPU that is only pretended: what a step launches, waits for and keeps in memory."""
