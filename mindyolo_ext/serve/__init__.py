"""A small HTTP server: an image in, boxes as JSON or a drawn picture out.

``run`` opens the address and starts uvicorn, ``app`` has the addresses of FastAPI, ``upload`` reads
what a client sends, ``service`` decodes it and runs the network, ``page.html`` is the page for
people.
"""
