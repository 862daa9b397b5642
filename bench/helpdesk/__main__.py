"""What is named of the problems of the helpdesk?

    python -m bench.helpdesk FOLDER [--rounds 2]

Needs PostgreSQL, redis-server and openssl.
"""

from bench.helpdesk.service import HELPDESK
from bench.planted.table import main

if __name__ == "__main__":
    main("bench.helpdesk", HELPDESK)
