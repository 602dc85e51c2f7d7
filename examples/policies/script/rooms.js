// One worker for each room: everybody who asks for /socket.io/?room=blue meets on the same one, and can
// be reached there without an adapter. Whoever names no room goes where there is least to do.
//
//   sidetrack run --policy ./rooms.js -- node server.js

export function balance(workers, request) {
  const room = request.query('room');
  if (!room) return leastLoaded(workers);
  const worker = byHash(workers, room);
  explain(`room ${room} lives on ${worker?.name}`);
  return worker;
}
