"""A clinic on Django and Celery, psycopg and Redis, for judging the rules blind."""
