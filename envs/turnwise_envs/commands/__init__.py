"""Commands of the environment room, one module each: ``turnwise envs``, ``turnwise play``, ``turnwise check-env``."""
