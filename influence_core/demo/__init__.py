"""The embedded demo: shipped assets into a workspace, and how they were made."""
