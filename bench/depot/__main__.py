"""What is named of the problems of the depot?

    python -m bench.depot FOLDER [--rounds 2]

Needs PostgreSQL and redis-server.
"""

from bench.depot.service import DEPOT
from bench.planted.table import main

if __name__ == "__main__":
    main("bench.depot", DEPOT)
