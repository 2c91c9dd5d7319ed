"""What benchmarks share: ways that take turns, images, training that is timed, peers."""
