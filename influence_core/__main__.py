"""``python -m influence_core``."""

from influence_core.cli import main

if __name__ == "__main__":
    main()
