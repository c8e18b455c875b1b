"""The sample export in docs/sample-export: made from a short real run."""
