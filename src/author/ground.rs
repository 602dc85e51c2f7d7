//! Made-up workers and requests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{Head, Request, Roster, WorkerId, WorkerInfo};

/// Versions of rosters are never reused, so they are numbered across everything there is.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

pub(super) fn roster(workers: impl IntoIterator<Item = WorkerInfo>) -> Roster {
    let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
    Roster { version, workers: workers.into_iter().collect() }
}

/// An ordinary worker, named after its id.
pub(super) fn worker(id: u32) -> WorkerInfo {
    WorkerInfo { id: WorkerId(id), name: format!("w{id}"), weight: 1, draining: false, labels: vec![] }
}

/// `count` ordinary workers.
pub(super) fn workers(count: u32) -> Roster {
    roster((0..count).map(worker))
}

/// One of many requests that differ in whatever a policy may tell clients apart by.
pub(super) fn client(number: u32) -> Request {
    let headers = [
        ("Host".to_owned(), "example.org".to_owned()),
        ("Cookie".to_owned(), format!("id=c{number}; theme=dark")),
        ("User-Agent".to_owned(), format!("agent/{}", number % 7)),
        ("X-Tenant".to_owned(), format!("t{}", number % 31)),
    ];
    let target = format!("/socket.io/?EIO=4&transport=polling&user=u{number}&room=r{}", number % 97);
    let peer = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
    request("GET", &target, &headers, Some(peer))
}

/// A request that is one.
pub(super) fn request(
    method: &str,
    target: &str,
    headers: &[(String, String)],
    peer: Option<IpAddr>,
) -> Request {
    // What cannot be parsed never gets to a policy, so the empty head stands for it.
    let head = Head::compose(method, target, headers).unwrap_or_default();
    Request { head, peer: peer.map(|ip| (ip, 40_000).into()), session: None, attempt: 0 }
}
