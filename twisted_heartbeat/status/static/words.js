// Copyright (c) twisted_heartbeat contributors.
// See LICENSE for details.

// Text for people: names, times, causes.

const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const MAX_SHOWN = 1024;

// What a peer says may hold control characters and bidirectional marks, which reorder what is read.
// They are escaped as in the log.
export function printable(text) {
  if (!text.trim()) return JSON.stringify(text);
  const cut = text.length > MAX_SHOWN ? text.slice(0, MAX_SHOWN - 1) + "…" : text;
  return cut.replace(INVISIBLE, (character) => {
    const code = character.codePointAt(0).toString(16);
    if (code.length <= 2) return "\\x" + code.padStart(2, "0");
    return code.length <= 4 ? "\\u" + code.padStart(4, "0") : "\\U" + code.padStart(8, "0");
  });
}

const numbers = new Intl.NumberFormat("en");

export function count(number) {
  return numbers.format(number);
}

export function peers(number) {
  return `${count(number)} ${number === 1 ? "peer" : "peers"}`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

export function roundTrip(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  const thousandths = seconds * 1000;
  if (thousandths >= 10) return `${Math.round(thousandths)} ms`;
  return thousandths >= 0.1 ? `${thousandths.toFixed(1)} ms` : "< 0.1 ms";
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "medium" });

export function timeOfDay(at, now) {
  const time = clock.format(at * 1000);
  const isToday = day.format(at * 1000) === day.format(now * 1000);
  return isToday ? time : `${day.format(at * 1000)}, ${time}`;
}

export function minuteOfDay(at, now) {
  const isToday = day.format(at * 1000) === day.format(now * 1000);
  return isToday ? minute.format(at * 1000) : `${day.format(at * 1000)}, ${minute.format(at * 1000)}`;
}

export function fullTime(at) {
  return weekday.format(at * 1000);
}

// What is shown of each cause, and its own summary.
const CAUSES = {
  PeerSilent: ["silent for its whole bound", "The peer said nothing for the whole bound."],
  PeerHung: [
    "hung: its system answers, its process does not",
    "The peer's kernel answers, its process does not.",
  ],
  KeepAliveExpired: [
    "no answer to the system’s keepalive",
    "The system's keepalive or retransmission got no answer (ETIMEDOUT).",
  ],
  PeerReset: [
    "its system no longer knew the connection",
    "The peer's host no longer knows the connection (ECONNRESET).",
  ],
  HostUnreachable: ["its host cannot be reached", "No way to the peer's host (EHOSTUNREACH)."],
  NetworkUnreachable: [
    "its network cannot be reached",
    "No way to the peer's network (ENETUNREACH).",
  ],
  SendFailed: [
    "sending to it failed",
    "A message could not be encoded, or the kernel refused it (EPIPE).",
  ],
  SendStalled: ["it took no more data", "The send buffer made no progress."],
  LinkLost: [
    "the connection was lost",
    "The connection was lost, and the transport does not say why.",
  ],
  PeerClosed: ["it closed the connection", "The peer closed the connection (FIN)."],
  ClosedHere: ["closed by this side", "This side closed the connection."],
  ConnectFailed: [
    "no connection was made",
    "No connection was made, or it was rejected before it was used.",
  ],
  HandshakeFailed: ["the TLS handshake failed", "The TLS handshake failed."],
  ProtocolViolation: [
    "it broke the protocol or passed a limit",
    "The peer broke the protocol, or passed a limit.",
  ],
  PermanentFailure: [
    "given up",
    "Raised by the user to stop retrying: no further attempt can succeed.",
  ],
  CheckInMissed: [
    "its check-in did not come in time",
    "No check-in came within the period and the grace time.",
  ],
  CheckInFailed: ["it said that its job had failed", "A check-in said that its job failed."],
};

export function cause(name) {
  return name === null ? "" : CAUSES[name]?.[0] ?? printable(name);
}

function plain(text) {
  return text.toLowerCase().replace(/( \((fin|close_notify)\))?\.?$/, "");
}

// What the reason of a cause adds to the words above. Its mere summary adds nothing but an error number.
export function detail(name, reason) {
  const isSummary = plain(reason) === plain(CAUSES[name]?.[1] ?? "");
  return reason && !(isSummary && !/\(E[A-Z]+\)/.test(reason)) ? printable(reason) : "";
}

// For the test that compares them with the package.
export const summaries = Object.fromEntries(Object.entries(CAUSES).map(([name, [, summary]]) => [name, summary]));
