"""offloop: logging off the event loop."""
