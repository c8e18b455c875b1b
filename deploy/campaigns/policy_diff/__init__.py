"""The embedded engine held against OPA itself, over inputs and data of every kind."""
