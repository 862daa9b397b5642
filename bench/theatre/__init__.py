"""A theatre's box office on FastAPI where everything is awaited, for judging the rules blind."""
