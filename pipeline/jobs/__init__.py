"""Work orders: the plan, the task that travels, and the executors that carry it."""
