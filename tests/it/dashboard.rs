//! The admin interface's page, in a real browser.

use std::path::Path;
use std::time::Duration;

use crate::admin::{Over, TOKEN};
use crate::support::{client, eventually_within, job, sidetrack, worker};

#[test]
fn a_person_sees_the_run_and_acts_on_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let over = Over::with_token(folder.path());
    let running = sidetrack(worker("listen.js")).with(&over.words()).start();
    let server = format!("http://{}", running.address());
    let mut words = vec!["--server", &server, "--token", TOKEN];
    // For whoever wants to look at it.
    let shots = std::env::var("SIDETRACK_SHOTS").ok();
    words.extend(shots.iter().flat_map(|folder| ["--shots", folder]));
    let result = client("dashboard.js", over.address(&running), &words);
    assert_eq!((&result["harmed"], &result["wider"]), (&0.into(), &0.into()), "{result}");
    assert!(result["figures"]["handed_off"].as_u64() > Some(100), "{result}");
    assert_eq!(running.log().matches("wrong tokens at the admin interface").count(), 1, "said once");
    // The worker before the restart may still have sessions, and so a channel.
    let stopped = running.terminate();
    assert_eq!((stopped.code, stopped.count("workers_lost")), (Some(0), 0));
}

#[test]
fn the_page_survives_sidetrack() {
    let folder = tempfile::tempdir().expect("a folder");
    let over = Over::with_token(folder.path());
    let start = |listen: &str, admin: &str| {
        let words = ["--admin-listen", admin, "--admin-token-file", &over.token_file];
        sidetrack(worker("listen.js")).listen(&[listen]).with(&words).start()
    };
    let first = start("127.0.0.1:0", "127.0.0.1:0");
    let (server, admin) = (first.address().to_string(), over.address(&first));
    let marker = folder.path().join("live").display().to_string();
    let page = job(
        "dashboard.js",
        admin,
        &["--server", &format!("http://{server}"), "--token", TOKEN, "--marker", &marker],
    );
    // A browser takes its time to start.
    let patience = Duration::from_secs(120);
    eventually_within(patience, "the page is live", || Path::new(&marker).exists().then_some(()));
    first.terminate();
    let second = start(&server, &admin.to_string());
    let result = page.result();
    assert_eq!(result["ok"], true, "{result}");
    second.stop();
}
