//! Workers that die, hang, or never come up; and their clients.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Client, alive, client, eventually, eventually_within, get, job, kill, pid, poll_session, session_at,
    sidetrack, signal, sockets, try_get, worker,
};

const GET: &str = "GET /pid HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";

/// "Within seconds", on a machine that has other things to do.
const SECONDS: Duration = Duration::from_secs(10);

fn connect(address: SocketAddr, number: usize) -> Vec<Client> {
    (0..number).map(|_| Client::with(address, GET)).collect()
}

/// Waits until all but this many are answered.
#[track_caller]
fn stuck(clients: &mut [Client], number: usize) {
    eventually(&format!("all but {number} are answered"), || {
        let waiting =
            clients.iter_mut().filter_map(|client| client.quiet_for(Duration::from_millis(1)).then_some(()));
        (waiting.count() == number).then_some(())
    });
}

#[test]
fn killed_with_connections_it_has_not_acknowledged() {
    let sidetrack = sidetrack(worker("listen.js")).policy("round-robin").start();
    let address = sidetrack.address();
    let victim = sidetrack.workers()[1];
    signal(victim, Signal::SIGSTOP);
    // A third of them goes to a worker that reads nothing, and says nothing.
    let mut clients = connect(address, 30);
    stuck(&mut clients, 10);
    kill(victim);
    for client in &mut clients {
        assert_ne!(client.response().pid(), victim, "answered by another");
    }
    drop(clients);
    eventually_within(SECONDS, "the slot is filled again", || {
        let workers = sidetrack.workers();
        (workers.len() == 3 && !workers.contains(&victim)).then_some(())
    });
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("rerouted"), 10);
    assert_eq!((stopped.count("workers_lost"), stopped.count("refused")), (1, 0));
}

#[test]
fn killed_with_a_full_window_and_a_queue_behind_it() {
    let sidetrack = sidetrack(worker("listen.js")).policy("round-robin").with(&["--window", "4"]).start();
    let victim = sidetrack.workers()[0];
    signal(victim, Signal::SIGSTOP);
    let mut clients = connect(sidetrack.address(), 60);
    // The last ones are answered by the others: all have been accepted.
    stuck(&mut clients, 20);
    kill(victim);
    for client in &mut clients {
        assert_ne!(client.response().pid(), victim);
    }
    drop(clients);
    sidetrack.all_ready_without(&[victim]);
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("rerouted"), 20);
    assert!(stopped.count("queued") >= 16, "{}", stopped.count("queued"));
    // Four had been sent to the victim and are sent again.
    assert_eq!((stopped.count("handed_off"), stopped.count("acknowledged")), (64, 60));
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn killed_under_load() {
    let sidetrack = sidetrack(worker("listen.js")).alone().start();
    let address = sidetrack.address();
    let victim = sidetrack.workers()[0];
    let idle = sockets(victim);
    let arguments = ["--c", "16", "--seconds", "5", "--allow", "16", "--request", "/slow?ms=20"];
    let load = job("load.js", address, &arguments);
    eventually("it has several clients at a time", || (sockets(victim) >= idle + 3).then_some(()));
    kill(victim);
    eventually_within(SECONDS, "the slot is filled again", || {
        let workers = sidetrack.workers();
        (workers.len() == 3 && !workers.contains(&victim)).then_some(())
    });
    let result = load.result();
    let requests = result["requests"].as_u64().expect("a count");
    let answered = result["ok200"].as_u64().expect("a count");
    assert!(requests > 100, "{result}");
    // Who fails was in the worker's hands when it died: never more than were under way, and
    // answered by nobody else.
    assert!(requests - answered <= 16, "{result}");
    let statuses = result["statuses"].as_object().expect("a histogram");
    assert!(statuses.keys().all(|status| status == "200"), "{result}");
    assert!(result["errors"]["ECONNREFUSED"].is_null(), "{result}");
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("workers_lost"), 1);
    assert_eq!(stopped.count("refused"), 0);
    // Every single connection had come into a worker's hands, those that failed as well.
    assert_eq!((stopped.count("accepted"), stopped.count("acknowledged")), (requests, requests), "{result}");
}

#[test]
fn its_sessions_are_forgotten() {
    let sidetrack = sidetrack(worker("listen.js")).policy("round-robin").start();
    let address = sidetrack.address();
    let sessions: Vec<_> = (0..6).map(|_| poll_session(address)).collect();
    let victim = sessions[0].1;
    kill(victim);
    sidetrack.all_ready_without(&[victim]);
    for (sid, owner) in &sessions {
        let (status, answerer) = session_at(address, &format!("sid={sid}"));
        if *owner == victim {
            // Another worker says so at once, and the client begins anew.
            assert_eq!(status, 400);
            assert_ne!(answerer, Some(victim));
        } else {
            assert_eq!((status, answerer), (200, Some(*owner)), "the others' sessions stay");
        }
    }
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("sessions_forgotten"), 2);
    assert_eq!(stopped.count("missed"), 2);
}

#[test]
fn the_rest_of_an_upload_is_never_taken_for_a_request() {
    let sidetrack = sidetrack(worker("crash-on-request.js")).start();
    let address = sidetrack.address();
    // Each piece of the body would be a perfect request.
    let smuggled = "GET /pid HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    let head = format!(
        "POST /crash-reading HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
        smuggled.len() * 10_000
    );
    let mut client = Client::with(address, head + &smuggled.repeat(100));
    let end = Instant::now() + SECONDS;
    while client.try_send(smuggled).is_ok() && Instant::now() < end {}
    let answer = client.read_to_end().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&answer), "", "nobody answers");
    sidetrack.logged("worker ended");
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.count("workers_lost"), 1);
    assert_eq!(
        (stopped.count("accepted"), stopped.count("handed_off"), stopped.count("rerouted")),
        (1, 1, 0)
    );
}

#[test]
fn a_worker_that_crashes_on_a_request_takes_only_its_own_clients_along() {
    let sidetrack = sidetrack(worker("crash-on-request.js")).start();
    let address = sidetrack.address();
    let before = sidetrack.workers();
    assert!(try_get(address, "/crash").is_err(), "this one had been acknowledged");
    for _ in 0..20 {
        assert_eq!(get(address, "/pid").status, 200);
    }
    let gone: Vec<_> = before.iter().copied().filter(|pid| !alive(*pid)).collect();
    assert_eq!(gone.len(), 1, "it is not sent to the next worker");
    sidetrack.all_ready_without(&gone);
    assert_eq!(sidetrack.stop().count("workers_lost"), 1);
}

#[test]
fn one_that_hangs_gets_nothing_until_it_is_back() {
    let sidetrack = sidetrack(worker("listen.js"))
        .policy("round-robin")
        .with(&["--unresponsive-after", "300ms", "--replace-after", "60s"])
        .start();
    let address = sidetrack.address();
    let hanging = sidetrack.workers()[2];
    signal(hanging, Signal::SIGSTOP);
    let mut clients = connect(address, 3);
    eventually_within(SECONDS, "it is out of the roster", || {
        let workers = sidetrack.workers();
        (workers.len() == 2 && !workers.contains(&hanging)).then_some(())
    });
    for _ in 0..6 {
        assert_ne!(pid(address), hanging);
    }
    signal(hanging, Signal::SIGCONT);
    eventually_within(SECONDS, "it is back", || (sidetrack.workers().len() == 3).then_some(()));
    let mut answers: Vec<_> = clients.iter_mut().map(|client| client.response().pid()).collect();
    answers.sort_unstable();
    let mut workers = sidetrack.workers();
    workers.sort_unstable();
    assert_eq!(answers, workers, "what it had is still its own");
    assert!((0..3).any(|_| pid(address) == hanging), "and it gets new ones");
    drop(clients);
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("workers_unresponsive"), stopped.count("workers_lost")), (1, 0));
    assert_eq!(stopped.count("rerouted"), 0);
}

#[test]
fn one_that_hangs_for_good_is_replaced() {
    let sidetrack = sidetrack(worker("listen.js"))
        .policy("round-robin")
        .with(&["--unresponsive-after", "200ms", "--replace-after", "600ms"])
        .start();
    let hanging = sidetrack.workers()[0];
    signal(hanging, Signal::SIGSTOP);
    let mut clients = connect(sidetrack.address(), 6);
    for client in &mut clients {
        assert_ne!(client.response().pid(), hanging);
    }
    drop(clients);
    sidetrack.all_ready_without(&[hanging]);
    assert!(!alive(hanging));
    let stopped = sidetrack.stop();
    assert_eq!((stopped.count("workers_unresponsive"), stopped.count("workers_lost")), (1, 1));
    assert_eq!(stopped.count("rerouted"), 2);
}

#[test]
fn one_that_is_busy_for_a_while_loses_nothing() {
    let sidetrack = sidetrack(worker("never-reads.js"))
        .policy("round-robin")
        .with(&["--unresponsive-after", "300ms"])
        .start();
    let address = sidetrack.address();
    let busy = get(address, "/block?ms=1500").json()["pid"].clone();
    let result = client("load.js", address, &["--n", "60", "--c", "60"]);
    assert_eq!(result["ok200"], 60, "{result}");
    eventually_within(SECONDS, &format!("{busy} is back"), || (sidetrack.workers().len() == 3).then_some(()));
    let stopped = sidetrack.stop();
    assert_eq!(stopped.count("workers_unresponsive"), 1);
    assert_eq!(stopped.count("workers_lost"), 0);
}

#[test]
fn one_that_is_busy_from_its_first_moment_loses_nothing() {
    let sidetrack = sidetrack(worker("never-reads.js")).env("BLOCK_ON_LISTEN_MS", "800").start();
    let result = client("load.js", sidetrack.address(), &["--n", "100", "--c", "50"]);
    assert_eq!(result["ok200"], 100, "{result}");
    assert_eq!(sidetrack.stop().count("workers_lost"), 0);
}

#[test]
fn a_program_that_never_starts_is_given_up() {
    let stopped = sidetrack(worker("exits-at-start.js")).finish();
    assert_eq!(stopped.code, Some(1), "{}", stopped.log);
    assert!(stopped.log.contains("exits-at-start: leaving"), "the program's own words are shown");
    assert!(stopped.log.contains("given up") && stopped.log.contains("exit status: 3"), "{}", stopped.log);
    // Three slots, each started once and twice again.
    assert_eq!(stopped.count("workers_started"), 9);
    assert_eq!(stopped.count("workers_ready"), 0);
}

#[test]
fn one_slot_given_up_does_not_end_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("some.js");
    let code = format!(
        "if (process.env.SIDETRACK_SLOT === 'w0') process.exit(3); else require({:?})",
        worker("listen.js")[1]
    );
    std::fs::write(&program, code).unwrap();
    let command = vec![worker("listen.js")[0].clone(), program.display().to_string()];
    let sidetrack = sidetrack(command).with(&["--restarts", "1"]).start_with(2);
    sidetrack.logged("slot w0 is given up");
    for _ in 0..4 {
        pid(sidetrack.address());
    }
    let stopped = sidetrack.terminate();
    assert_eq!(stopped.code, Some(0));
    assert_eq!(stopped.count("refused"), 0);
}

#[test]
fn connections_wait_for_a_slow_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let sidetrack = sidetrack(worker("slow-start.js")).workers(2).listen(&[&address.to_string()]).spawn();
    // The address is there before any worker is.
    sidetrack.logged("worker started");
    let mut early = connect(address, 5);
    assert!(sidetrack.ready().is_none(), "no worker is ready yet");
    for client in &mut early {
        assert_eq!(client.response().status, 200);
    }
    drop(early);
    let stopped = sidetrack.terminate();
    assert_eq!((stopped.code, stopped.count("refused")), (Some(0), 0));
}

#[test]
fn with_no_worker_ready_a_client_waits_and_is_then_told_to_come_back() {
    let sidetrack = sidetrack(worker("slow-start.js"))
        .workers(1)
        .env("START_MS", "2500")
        .with(&["--worker-wait", "300ms"])
        .start();
    let address = sidetrack.address();
    let only = sidetrack.workers()[0];
    kill(only);
    sidetrack.logged("worker ended");
    let start = Instant::now();
    let response = get(address, "/pid");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert_eq!(response.text(), "no worker is ready\n");
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    sidetrack.all_ready_without(&[only]);
    assert_ne!(pid(address), only);
    assert_eq!(sidetrack.stop().count("refused"), 1);
}

#[test]
fn with_no_worker_ready_for_its_server_a_client_waits_for_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("by-slot.js");
    let code = "require('http').createServer((_, response) => response.end(`{\"pid\":${process.pid}}`))
        .listen({ port: 0, host: process.env.SIDETRACK_SLOT === 'w0' ? '127.0.0.1' : '127.0.0.2' })";
    std::fs::write(&program, code).unwrap();
    let command = vec![worker("listen.js")[0].clone(), program.display().to_string()];
    let sidetrack = sidetrack(command).workers(2).listen(&[]).with(&["--worker-wait", "30s"]).start();
    let addresses = sidetrack.all_addresses();
    let both = || -> Vec<u32> { addresses.iter().map(|address| pid(*address)).collect() };
    let before = both();
    assert_ne!(before[0], before[1], "each has a server of its own");
    kill(before[1]);
    sidetrack.logged("worker ended");
    let after = both();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
    sidetrack.all_ready_without(&before[1..]);
    assert_eq!(sidetrack.stop().count("refused"), 0);
}

#[test]
fn with_no_worker_ready_a_client_waits_for_the_next_one() {
    let sidetrack = sidetrack(worker("listen.js")).workers(1).with(&["--worker-wait", "30s"]).start();
    let address = sidetrack.address();
    let only = sidetrack.workers()[0];
    kill(only);
    sidetrack.logged("worker ended");
    let answers: Vec<_> = (0..5).map(|_| thread::spawn(move || pid(address))).collect();
    for answer in answers {
        assert_ne!(answer.join().unwrap(), only);
    }
    sidetrack.all_ready_without(&[only]);
    assert_eq!(sidetrack.stop().count("refused"), 0);
}
