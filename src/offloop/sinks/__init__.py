"""One destination a module; each is imported when it is asked for."""
