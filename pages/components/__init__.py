"""What the pages share; each file is one concept."""
