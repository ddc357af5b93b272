// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// Asks the server, and gives up when nothing comes for a while. A browser waits without end for an
// answer over a connection that is dead, or of a server that is stopped.

export const SILENT_AFTER = 25000; // milliseconds: on a stream the server sends something every ten seconds

// Calls read(answer, heard) with the answer. While it reads, it has to call heard() for each part.
export async function ask(address, options, read) {
  const patience = new AbortController();
  let silence = 0;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => patience.abort(), SILENT_AFTER);
  };
  heard();
  try {
    return await read(await fetch(address, { ...options, signal: patience.signal }), heard);
  } finally {
    clearTimeout(silence);
  }
}
