"""What is in a folder or a file: recognised and read without torch."""
