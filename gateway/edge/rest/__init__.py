"""The REST interface, a file for each resource; ``routes`` holds what they share."""
