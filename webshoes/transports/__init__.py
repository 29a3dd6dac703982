"""The faces: aiohttp on one side, the core on the other."""
