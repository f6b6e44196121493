// Preloaded with `node --require`: a server that would listen on all interfaces listens on loopback alone, and says
// where.
"use strict";
const net = require("node:net");
const { listen } = net.Server.prototype;
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof rest[0] === "string") rest.shift();
  this.once("listening", () => console.error(`listening on http://127.0.0.1:${this.address().port}`));
  return listen.call(this, port, "127.0.0.1", ...rest);
};
