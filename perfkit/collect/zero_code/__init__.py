"""The folder that `perfkit record --instrument` puts on the path of the recorded program.

Nothing may be here but `sitecustomize`: any other module would hide one of the program's own.
"""
