"""What each command does, top to bottom; `skinseg.<command>` says what it takes."""
