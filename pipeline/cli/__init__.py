"""What several commands share: the flags that say which runs are meant, and the progress display."""
