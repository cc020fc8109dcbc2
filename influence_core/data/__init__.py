"""Examples with stable ids, and where they come from: the demo, files, the hub."""
