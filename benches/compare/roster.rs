//! Many workers: what a connection costs when there are more of them to choose from.
//!
//! Real ones would need more memory than a machine for benchmarks has. These are tasks of the benchmark that
//! join as any worker does, over a channel of their own each, and answer every connection in the same way.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use sidetrack_worker::{Listener, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::Effort;
use crate::scenarios::connections_through;
use crate::support::peers::Peer;
use crate::table::Table;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

pub fn roster(effort: Effort) -> Table {
    let joined = [4, 64, 256, 1024].map(|workers| {
        Peer::sidetrack_joined(&format!("{workers} workers"), workers, |socket| join(socket, workers))
    });
    let (peers, workers): (Vec<Peer>, Vec<_>) = joined.into_iter().unzip();
    let mut table = connections_through("New connections by size of the roster, 64 clients", &peers, effort);
    drop(workers);
    table.notes.push("The workers are tasks of the benchmark, and what they spend is not shown.".to_owned());
    table
}

/// This many workers, on a thread of theirs. They end with what is returned.
fn join(socket: &Path, workers: usize) -> oneshot::Sender<()> {
    let (over, end) = oneshot::channel();
    let (joined, all) = mpsc::channel();
    let socket = socket.to_owned();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for _ in 0..workers {
                let listener = Listener::join(&socket).await.expect("there is room");
                tokio::spawn(serve(listener));
            }
            joined.send(()).expect("somebody waits for them");
            // Dropped, not sent.
            let _ = end.await;
        });
    });
    all.recv().expect("they have joined");
    over
}

async fn serve(mut listener: Listener) {
    listener.ready();
    while let Ok(Some((stream, _))) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// A client that leaves early is its own affair.
async fn answer(mut stream: Stream) {
    let mut request = [0; 1024];
    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
        let _ = stream.write_all(ANSWER).await;
        let _ = stream.shutdown().await;
    }
}
