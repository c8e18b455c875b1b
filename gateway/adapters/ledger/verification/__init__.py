"""The offline verifier: believes a public key and a checkpoint from elsewhere, and nothing the log says of itself."""
