"""The plan of a grid, the payloads that jobs execute, and the executors that run them."""
