# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A job that reports its start and its end: C{python job.py URL FILE} counts the lines of a file.
"""

import sys

from twisted.internet import defer, task, threads

from twisted_heartbeat import CheckIn


def countLines(path):
    """
    Do the work of this job.
    """
    with open(path, "rb") as file:
        return sum(1 for _ in file)


async def main(reactor, url, path):
    """
    Run the job once.
    """
    async with CheckIn(url, interval=None, reactor=reactor).run() as run:
        lines = await threads.deferToThread(countLines, path)
        await run.log(f"{lines} lines")
    print(lines)


if __name__ == "__main__":
    task.react(lambda *arguments: defer.ensureDeferred(main(*arguments)), sys.argv[1:])
