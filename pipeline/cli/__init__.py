"""What the commands share: the flags that say which runs are meant, and what they print of a plan."""
