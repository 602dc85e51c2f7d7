// What clients may call. One hub for each connection: its state lives in this process's memory.
'use strict';

exports.hub = function (connectionId) {
  let calls = 0;
  return {
    Echo(text) {
      return text;
    },
    WhoAmI() {
      return { connectionId, pid: process.pid, calls: ++calls };
    },
  };
};
