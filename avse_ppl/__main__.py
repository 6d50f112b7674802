"""``python -m avse_ppl`` is ``avse-ppl``."""

from avse_ppl.cli.main import main

if __name__ == "__main__":
    main()
