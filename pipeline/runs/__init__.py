"""What a run is (its spec and id), where it runs (the cluster file), and its folder, where the two meet."""
