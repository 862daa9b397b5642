"""What is named of the problems of the clinic?

    python -m bench.clinic FOLDER [--rounds 2]

Needs PostgreSQL and redis-server.
"""

from bench.clinic.service import CLINIC
from bench.planted.table import main

if __name__ == "__main__":
    main("bench.clinic", CLINIC)
