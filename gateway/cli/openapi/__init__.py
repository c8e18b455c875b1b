"""An OpenAPI document becomes a declarative HTTP catalogue: what cannot be carried is refused, and nothing is guessed."""
