"""The heart: values in, values out. No socket, event loop, clock, randomness or log lives here; they are handed in."""
