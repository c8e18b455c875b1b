"""What the gateway keeps in its log: each book writes records of its own and is rebuilt from them."""
