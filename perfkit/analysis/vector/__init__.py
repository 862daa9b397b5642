"""Operations on whole columns that the analyses share; nothing here knows a table."""
