"""Lock around calls of the framework: MindSpore crashes when two threads use it at once."""

import threading

# One lock for all networks of the process; it is reentrant
framework_lock = threading.RLock()
