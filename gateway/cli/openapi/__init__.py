"""An OpenAPI document becomes a catalogue of HTTP tools: what cannot be carried is refused, and nothing is guessed."""
