//! Nothing is left behind. Counted in a process of its own, since the other tests open and close.

use std::process::Command;

use fastrand::Rng;

use crate::client::{Client, ask};
use crate::host::{Host, until};
use crate::server::serve;

#[test]
fn descriptors_do_not_pile_up() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "descriptors::counted", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
#[ignore = "runs inside descriptors_do_not_pile_up"]
async fn counted() {
    let (host, mut listeners) = Host::with_workers(2, "header:x-session");
    for (listener, name) in listeners.drain(..).zip(["a", "b"]) {
        listener.sessions().open(name).await.keep();
        host.knows(name).await;
        tokio::spawn(serve(listener, name));
    }
    let mut random = Rng::with_seed(9);
    // So that the resolver, the reactor and whatever else have what they keep.
    let mut before = 0;
    for round in 0..3 {
        for _ in 0..20 {
            let mut client = Client::new(host.client(0).await);
            for owner in ["a", "b", "a"] {
                let request = format!("GET /?n={} HTTP/1.1\r\nX-Session: {owner}\r\n\r\n", random.u8(..));
                client.write(request.as_bytes()).await;
                assert_eq!(client.answer().await.worker, owner);
            }
            // Some leave with an answer or a foreign request under way.
            let ask = ask("/slow", "none", "a", &mut random, 100);
            match random.u8(..3) {
                0 => client.write(&ask.bytes).await,
                1 => client.write(b"GET / HTTP/1.1\r\nX-Session: b\r\n\r\n").await,
                _ => {}
            }
        }
        if round == 0 {
            let started = std::time::Instant::now();
            until(|| started.elapsed().as_millis() > 200).await;
            before = open();
        }
    }
    until(|| open() <= before).await;
    assert_eq!(open(), before);
}
