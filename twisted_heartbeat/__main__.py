# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
C{python -m twisted_heartbeat}: the demonstration.
"""

from .demo.main import main

if __name__ == "__main__":
    main()
