"""The engines that execute the trials of a fan-out inside one job: Ray Tune, or plain worker processes."""
