"""What is named of the problems of the bookshop?

    python -m bench.bookshop FOLDER [--rounds 2]

Needs PostgreSQL.
"""

from bench.bookshop.service import BOOKSHOP
from bench.planted.table import main

if __name__ == "__main__":
    main("bench.bookshop", BOOKSHOP)
