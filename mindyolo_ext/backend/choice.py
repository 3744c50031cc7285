"""Which framework this process runs on. Only the modules of ``backend`` ask."""

BACKEND = "mindspore"
