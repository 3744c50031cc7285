"""Which framework this process runs on. Only the modules of ``backend`` ask.

``MINDYOLO_EXT_BACKEND=shapes`` in the environment takes the backend that only declares parameters,
for ``checkpoint.outline``.
"""

import os

BACKEND = "shapes" if os.environ.get("MINDYOLO_EXT_BACKEND") == "shapes" else "mindspore"
