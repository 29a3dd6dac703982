"""What every response has."""

HEADERS = {
    'X-Content-Type-Options': 'nosniff',  # what is sent as text is not to be run as a script
    'Server': 'webshoes',  # and not the versions of what is inside
}
JSON = {**HEADERS, 'Content-Type': 'application/json'}
