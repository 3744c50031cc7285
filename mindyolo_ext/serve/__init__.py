"""A small HTTP server that takes an image and returns boxes as JSON or drawn on the image.

``run`` opens the port and starts uvicorn, ``app`` defines the FastAPI routes, ``upload`` reads the
request body, ``service`` decodes it and runs the network, and ``page.html`` is the web page.
"""
