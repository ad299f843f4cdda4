"""The results book: published protocols from raw files to a table, each number with what it takes
to make it again.
"""
