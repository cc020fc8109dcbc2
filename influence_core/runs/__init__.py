"""Where work runs: run directories, the registry of what can run, and the engine that runs it."""
