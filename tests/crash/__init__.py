"""What survives a SIGKILL."""
