"""Commands of the trainer room. Each module imports torch and the like inside its functions: help stays fast."""
