// Loaded before a Node program that runs as a pod: gives it the pod's own address and ports.
// A pod here has no network of its own, so "all interfaces" and "this machine" mean POD_IP, and
// each port is the one that PORT_<number> names (the same on Linux, a free one elsewhere).
"use strict";
const net = require("node:net");

const ADDRESS = process.env.POD_IP;
const OURS = new Set([undefined, "", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost"]);

function moved(port, host) {
  const real = Number(process.env[`PORT_${port}`] || port);
  return { port: real, host: OURS.has(host) ? ADDRESS : host };
}

function movedWords(words) {
  const [first, second, ...rest] = words;
  if (first !== null && typeof first === "object" && first.port !== undefined && !first.path)
    return [{ ...first, ...moved(first.port, first.host) }, ...words.slice(1)];
  if (typeof first !== "number") return words;
  return typeof second === "string"
    ? [moved(first, second), ...rest]
    : [moved(first, undefined), ...words.slice(1)];
}

if (ADDRESS) {
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...words) {
    return listen.apply(this, movedWords(words));
  };
}
