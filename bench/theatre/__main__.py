"""What is named of the problems of the theatre?

    python -m bench.theatre FOLDER [--rounds 2]

Needs PostgreSQL and redis-server.
"""

from bench.planted.table import main
from bench.theatre.service import THEATRE

if __name__ == "__main__":
    main("bench.theatre", THEATRE)
