"""The lock under which the framework works: MindSpore crashes when two threads use it at once."""

import threading

# One for the whole process and all its networks. The thread that holds it may take it again.
framework_lock = threading.RLock()
